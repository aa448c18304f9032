"""One run writes a run_dir at a time; with no rank outliving what started it, kill -9 and the same command are safe."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

LOCK = ".running"
_held: list[int] = []  # open until this process ends


def claim(run_dir: str | Path, keep: bool = True) -> None:
    """Raises ValueError while another process has claimed the folder; the claim ends with this process.

    keep: off only looks. A file system without locks lets everybody pass. POSIX locks, for they are not inherited: a
    data worker that outlives its rank for seconds holds nothing.
    """
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(Path(run_dir) / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise ValueError(
            f"{run_dir} is being written by {holder}: wait until it has ended (one that was stopped saves a checkpoint "
            "first), end it, or choose another run_dir"
        ) from error
    except OSError:
        pass  # this file system has no locks: refusing every run on it would be worse than missing a second one
    if not keep:
        os.close(descriptor)
        return
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    _held.append(descriptor)
