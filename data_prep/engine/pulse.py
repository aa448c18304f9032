"""What a task says about itself, every second, in a file: `status` and the progress bar read it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.engine.folder import PhaseFolder
from data_prep.engine.ledger import Ledger
from nemo_amalia.utils.files import write_json

PULSE_SECONDS = 1.0


@dataclass
class Pulse:
    """Of one task. open: the ledgers of the chunks that it works on, by number. retried: gives the calls that were sent
    again and are in none of these ledgers, by cause. pauses: gives the seconds that servers asked it to wait.
    notes: lines for `status` about how it began.

    owner: process whose death ends this one (0: none): nobody would see this task's errors, and the next run would wait
    for its chunk.
    """

    folder: PhaseFolder
    task: int
    owner: int = 0
    records: int = 0
    open: dict[int, Ledger] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    retried: Callable[[], Mapping[str, int]] = dict
    pauses: Callable[[], Mapping[str, float]] = dict
    _written: float = 0.0
    _pause: float = 0.0  # seconds, the longest that was on when this was last written
    _waited: float = 0.0  # seconds of pauses until then: no part of the rate of records

    def __post_init__(self) -> None:
        self._started = time.time()

    def beat(self, state: str = "running", error: str = "") -> None:
        """Writes at most once a second, and at every change of state: running, done, failed."""
        now = time.time()
        if state == "running" and now - self._written < PULSE_SECONDS:
            return
        if self.owner and os.getppid() != self.owner and not alive(self.owner):
            os._exit(1)
        self._waited += min(self._pause, now - self._written)
        pauses = self.pauses()
        self._written, self._pause = now, max(pauses.values(), default=0.0)
        content = {"task": self.task, "pid": os.getpid(), "host": socket.gethostname(), "state": state, "error": error}
        content |= {"started": self._started, "updated": now, "records": self.records}
        content["open"] = {str(chunk): ledger.to_json() for chunk, ledger in self.open.items()}
        content |= {"retried": dict(self.retried()), "notes": self.notes}
        content |= {"waited": self._waited, "paused_until": {server: now + left for server, left in pauses.items()}}
        write_json(self.folder.live(self.task), content)


def alive(pid: int) -> bool:
    """Whether a process of this machine runs (a zombie does not)."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # another user's, or no /proc
        return True
