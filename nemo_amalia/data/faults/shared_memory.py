"""Memory that forked workers write and the training process reads: counters by name, and short texts.

Anonymous shared memory without a lock: every process writes its own row alone, so a worker that is killed in mid-write
blocks nobody and loses at most its last record.
"""

from __future__ import annotations

import mmap

import numpy as np

LENGTH_BYTES = 2


def shared(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    """Zeros that forked children share with this process; pages cost memory once they are written."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype=dtype).reshape(shape)  # the array keeps the map alive


def write_text(target: np.ndarray, text: str) -> None:
    """Puts text, cut to what fits, into a uint8 row. The length goes last: a torn text reads as none."""
    data = text.encode(errors="replace")[: len(target) - LENGTH_BYTES]
    target[:LENGTH_BYTES] = 0
    target[LENGTH_BYTES : LENGTH_BYTES + len(data)] = np.frombuffer(data, dtype=np.uint8)
    target[:LENGTH_BYTES] = np.frombuffer(len(data).to_bytes(LENGTH_BYTES, "little"), dtype=np.uint8)


def read_text(source: np.ndarray) -> str:
    """What write_text put there; empty where nothing is."""
    length = int.from_bytes(source[:LENGTH_BYTES].tobytes(), "little")
    return source[LENGTH_BYTES : LENGTH_BYTES + length].tobytes().decode(errors="ignore")


class NamedCounts:
    """int64 counters [rows, slots + 1, columns]: a slot for each name that a row meets, the last for all beyond them.

    Names longer than name_bytes - 2 lose their end. `counts` is the memory itself.
    """

    def __init__(self, rows: int, slots: int, columns: int, name_bytes: int) -> None:
        self.slots = slots
        self.counts = shared((rows, slots + 1, columns), np.int64)
        self._names = shared((rows, slots, name_bytes))
        self._known: list[dict[str, int]] = [{} for _ in range(rows)]  # of this process, for the row that it writes

    def add(self, row: int, name: str, column: int, number: int = 1) -> None:
        """Adds to a counter of this process's row."""
        slot = self._known[row].get(name)
        self.counts[row, self._slot(row, name) if slot is None else slot, column] += number

    def _slot(self, row: int, name: str) -> int:
        known = self._known[row]
        slot = len(known)
        if slot < self.slots:
            write_text(self._names[row, slot], name)
            known[name] = slot
        return min(slot, self.slots)

    def totals(self, beyond: str) -> dict[str, np.ndarray]:
        """[columns] of each name, summed over the rows; `beyond` names what did not get a slot, if anything."""
        found: dict[str, np.ndarray] = {}
        for row, slots in enumerate(self._names):
            for slot, name in enumerate(map(read_text, slots)):
                if not name:
                    break
                found[name] = found.get(name, 0) + self.counts[row, slot]
        rest = self.counts[:, -1].sum(axis=0)
        return found | ({beyond: rest} if rest.any() else {})
