"""One run writes a run_dir at a time; with no rank outliving what started it, kill -9 and the same command are safe."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from nemo_amalia.utils.errors import EnvironmentProblem

LOCK = ".running"
_held: list[int] = []  # open until this process ends


def claim(
    run_dir: str | Path, keep: bool = True, patience: float = 0.0, say: Callable[[str], None] | None = None
) -> None:
    """Raises EnvironmentProblem while another process has claimed the folder; the claim ends with this process.

    keep: off only looks. patience: seconds to wait for the other to end, said once through ``say``. A file system
    without locks lets everybody pass. POSIX locks, for they are not inherited: a data worker that outlives its rank for
    seconds holds nothing.
    """
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(Path(run_dir) / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + patience
    holder = _lock(descriptor)
    if holder and patience and say is not None:
        say(f"[job] waits up to {patience:.0f} s for {holder}, which still writes {run_dir}")
    while holder and time.monotonic() < deadline:
        time.sleep(1)
        holder = _lock(descriptor)
    if holder:
        os.close(descriptor)
        raise EnvironmentProblem(
            f"{run_dir} is being written by {holder}: wait until it has ended (one that was stopped saves a checkpoint "
            "first), end it, or choose another run_dir"
        )
    if not keep:
        os.close(descriptor)
        return
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    _held.append(descriptor)


def _lock(descriptor: int) -> str:
    """Who holds the lock; nobody, where it is ours now or where this file system has no locks: refusing every run on it
    would be worse than missing a second one.
    """
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
    except OSError:
        return ""
    return ""
