"""How much memory a process and everything it started take together: the demo's own measure of its bound."""

import os
import threading
from pathlib import Path

_EVERY_SECONDS = 3.0


def family(root: int) -> list[int]:
    """``root`` and every process below it, from /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])  # the name before it may hold spaces
        except OSError:
            continue  # it has ended meanwhile
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, ())
    return found


def proportional_bytes(pid: int) -> int:
    """The proportional set size of a process: a page that n processes share counts 1/n for each. 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


class PeakMemory:
    """Looks every few seconds while its block runs; ``bytes`` is the largest sum that it saw."""

    def __init__(self):
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()
        self.look()

    def look(self) -> None:
        """Take one measure."""
        self.bytes = max(self.bytes, sum(proportional_bytes(pid) for pid in family(os.getpid())))

    def _watch(self) -> None:
        while not self._done.wait(_EVERY_SECONDS):
            self.look()
