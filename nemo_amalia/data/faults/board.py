"""What the data path dropped, by source and reason and shard: counters and a log that survive the death of a worker.

Energon's workers are forked processes, so all of it lies in shared memory (shared_counts.py). The rule that the counts
keep, for every source: samples_in = samples_out + dropped + samples still in a buffer. A source is the data set that a
sample was read from: its folder, else what the sample's json calls its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import get_worker_info

from nemo_amalia.data.faults.shared_memory import NamedCounts, read_text, shared, write_text

QUARANTINED = "quarantined"  # named in data.quarantine: left out on purpose, and not held against the limit
REASONS = (
    "record",  # the shard's record is not a conversation, or a pair where pairs are trained
    "messages",
    "special_token",
    "chat_template",
    "placeholders",
    "no_loss_token",
    "no_answer",  # of a preference pair: missing or empty
    "same_answers",
    "other_prompt",  # chosen and rejected do not answer the same
    "too_long",
    "image",  # unreadable, truncated, or not decodable
    "other",
    QUARANTINED,
)
COLUMNS = ("samples_in", "samples_out", *REASONS)
SOURCES, SHARDS = 256, 256  # of each process, by name; what comes after them is counted together
NAME_BYTES, LOG_SLOTS, RECORD_BYTES, TEXT_BYTES = 768, 256, 2048, 4096
OTHER_SOURCES, OTHER_SHARDS, UNNAMED = "other sources", "other shards", "unnamed source"
SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Fault:
    """One dropped sample. key: as errors call it; source: folder of its data set; shard: name of its tar."""

    key: str
    reason: str
    message: str
    source: str = ""
    shard: str = ""


class FaultBoard:
    """Counters, the last 256 dropped samples of each process, what each is doing, and the failure that stopped one.

    num_workers: worker processes that will be forked after the board is made. The board cannot be pickled;
    it is inherited through fork.
    """

    def __init__(self, num_workers: int) -> None:
        self.rows = num_workers + 1  # row 0 is the main process
        self._sources = NamedCounts(self.rows, SOURCES, len(COLUMNS), NAME_BYTES)
        self._shards = NamedCounts(self.rows, SHARDS, 1, NAME_BYTES)
        self._logged = shared((self.rows,), np.int64)
        self._logs = shared((self.rows, LOG_SLOTS, RECORD_BYTES))
        self._failures = shared((self.rows, TEXT_BYTES))
        self._doing = shared((self.rows, TEXT_BYTES))

    @staticmethod
    def _row() -> int:
        worker = get_worker_info()
        return 0 if worker is None else worker.id + 1

    def begin(self, what: str) -> None:
        """Notes what this process begins to do, for whoever finds it dead or stuck."""
        write_text(self._doing[self._row()], what)

    def doing(self, worker: int) -> str:
        """What a worker process noted last; empty where it noted nothing."""
        return read_text(self._doing[worker + 1])

    def count_in(self, samples: int = 1, source: str = "") -> None:
        """Samples that were read."""
        self._sources.add(self._row(), _short(source), 0, samples)

    def count_out(self, samples: int = 1, source: str = "") -> None:
        """Samples that went into a micro-batch."""
        self._sources.add(self._row(), _short(source), 1, samples)

    def drop(self, key: str, reason: str, message: str = "", source: str = "", shard: str = "") -> None:
        """Counts a dropped sample under `reason` (one of REASONS) and logs it, unless it was quarantined."""
        row, column, source = self._row(), COLUMNS.index(reason), _short(source)
        if reason != QUARANTINED:
            number = int(self._logged[row])
            parts = (str(number), key[-256:], reason, source, shard[-200:], message[:500])
            write_text(self._logs[row, number % LOG_SLOTS], SEPARATOR.join(parts))
            self._logged[row] += 1
            self._shards.add(row, f"{source}{SEPARATOR}{shard[-200:]}", 0)
        self._sources.add(row, source, column)

    def fail(self, message: str) -> None:
        """Leaves the one line that the main process will raise."""
        write_text(self._failures[self._row()], message)

    def failure(self) -> str | None:
        """The line left by `fail`, of whichever process."""
        return next((text for text in map(read_text, self._failures) if text), None)

    def totals(self) -> dict[str, int]:
        """samples_in, samples_out and every reason, summed over sources and processes."""
        return dict(zip(COLUMNS, self._sources.counts.sum(axis=(0, 1)).tolist(), strict=True))

    def dropped(self) -> dict[str, int]:
        """The reasons that occurred, with their counts."""
        return {name: count for name, count in self.totals().items() if name in REASONS and count}

    def by_source(self) -> dict[str, dict[str, int]]:
        """`totals` of each source; those beyond the first 256 of a process are "other sources"."""
        found = self._sources.totals(OTHER_SOURCES)
        return {name: dict(zip(COLUMNS, counts.tolist(), strict=True)) for name, counts in found.items()}

    def by_shard(self) -> dict[tuple[str, str], int]:
        """(source, shard) -> dropped samples. ("", "other shards") counts shards beyond the first 256 of a process."""
        found = self._shards.totals(SEPARATOR + OTHER_SHARDS)
        return {tuple(name.partition(SEPARATOR)[::2]): int(counts[0]) for name, counts in found.items()}

    def log(self) -> list[Fault]:
        """The last dropped samples, at most 256 of each process."""
        return self.log_since([0] * self.rows)[0]

    def log_since(self, seen: Sequence[int]) -> tuple[list[Fault], int, list[int]]:
        """(new faults, number that the log no longer holds, `seen` for the next call). seen: drops of each process
        that were taken before; zeros at first.
        """
        now = self._logged.tolist()
        faults: list[Fault] = []
        for row, (start, end) in enumerate(zip(seen, now, strict=True)):
            for number in range(max(start, end - LOG_SLOTS), end):
                parts = read_text(self._logs[row, number % LOG_SLOTS]).split(SEPARATOR, 5)
                if len(parts) == 6 and parts[0] == str(number):  # else it was written over, or is being
                    _, key, reason, source, shard, message = parts
                    faults.append(Fault(key, reason, message, source, shard))
        return faults, sum(now) - sum(seen) - len(faults), now


def _short(source: str) -> str:
    return source[-500:] or UNNAMED
