"""What the data path dropped, and why: counters and a bounded log that survive the death of a worker.

Energon's workers are forked processes, so the counts live in anonymous shared memory. Every process writes
its own row and nobody takes a lock: a worker that is killed in mid-write blocks nobody and loses at most its
last record. The rule that the counts keep: samples_in = samples_out + dropped + samples still in a buffer.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np
from torch.utils.data import get_worker_info

REASONS = (
    "record",  # the shard's record is not a conversation
    "messages",
    "special_token",
    "chat_template",
    "placeholders",
    "no_loss_token",
    "too_long",
    "image",  # unreadable, truncated, or not decodable
    "other",
)
COLUMNS = ("samples_in", "samples_out", *REASONS)
LOG_SLOTS, RECORD_BYTES, FAILURE_BYTES = 64, 1024, 4096
SEPARATOR = b"\x1f"


@dataclass(frozen=True, slots=True)
class Fault:
    """One dropped sample."""

    key: str
    reason: str
    message: str


class FaultBoard:
    """Counters by reason, the last 64 dropped samples of each process, and the failure that stopped one.

    num_workers: worker processes that will be forked after the board is made. The board cannot be pickled;
    it is inherited through fork.
    """

    def __init__(self, num_workers: int = 0) -> None:
        self.rows = num_workers + 1  # row 0 is the main process
        counts, logs = self.rows * len(COLUMNS) * 8, self.rows * LOG_SLOTS * RECORD_BYTES
        self._memory = mmap.mmap(-1, counts + logs + self.rows * FAILURE_BYTES)
        raw = np.frombuffer(self._memory, dtype=np.uint8)
        self._counts = raw[:counts].view(np.int64).reshape(self.rows, len(COLUMNS))
        self._logs = raw[counts : counts + logs].reshape(self.rows, LOG_SLOTS, RECORD_BYTES)
        self._failures = raw[counts + logs :].reshape(self.rows, FAILURE_BYTES)

    @staticmethod
    def _row() -> int:
        worker = get_worker_info()
        return 0 if worker is None else worker.id + 1

    def count_in(self, samples: int = 1) -> None:
        self._counts[self._row(), 0] += samples

    def count_out(self, samples: int = 1) -> None:
        self._counts[self._row(), 1] += samples

    def drop(self, key: str, reason: str, message: str = "") -> None:
        """Counts a dropped sample under `reason` (one of REASONS) and logs it."""
        row, column = self._row(), COLUMNS.index(reason)
        slot = int(self._counts[row, 2:].sum()) % LOG_SLOTS
        parts = (key.encode()[:256], reason.encode(), message.encode()[:640])
        _write(self._logs[row, slot], SEPARATOR.join(parts))
        self._counts[row, column] += 1

    def fail(self, message: str) -> None:
        """Leaves the one line that the main process will raise."""
        _write(self._failures[self._row()], message.encode()[: FAILURE_BYTES - 2])

    def failure(self) -> str | None:
        """The line left by `fail`, of whichever process."""
        texts = (_read(self._failures[row]) for row in range(self.rows))
        return next((text.decode(errors="ignore") for text in texts if text), None)

    def totals(self) -> dict[str, int]:
        """samples_in, samples_out and every reason, summed over the processes."""
        return dict(zip(COLUMNS, self._counts.sum(axis=0).tolist(), strict=True))

    def dropped(self) -> dict[str, int]:
        """The reasons that occurred, with their counts."""
        return {name: count for name, count in self.totals().items() if name in REASONS and count}

    def log(self) -> list[Fault]:
        """The last dropped samples, at most 64 of each process."""
        records = (_read(self._logs[row, slot]) for row in range(self.rows) for slot in range(LOG_SLOTS))
        parts = (record.decode(errors="ignore").split(SEPARATOR.decode(), 2) for record in records if record)
        return [Fault(*part) for part in parts if len(part) == 3]


def _write(target: np.ndarray, text: bytes) -> None:
    target[:2] = 0
    target[2 : 2 + len(text)] = np.frombuffer(text, dtype=np.uint8)
    target[:2] = np.frombuffer(len(text).to_bytes(2, "little"), dtype=np.uint8)


def _read(source: np.ndarray) -> bytes:
    length = int.from_bytes(source[:2].tobytes(), "little")
    return source[2 : 2 + length].tobytes()
