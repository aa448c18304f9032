"""Lengths in the order of the shards -> packs, a window at a time, so that the samples of a pack lie near each other.

What a window leaves under-filled is not given out half empty: its samples wait for the next window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nemo_amalia.data.packing.algorithms import ALGORITHMS, padded_length, under_filled
from nemo_amalia.utils.errors import DataError


class WindowPacker:
    """Samples are numbered in the order they come, from 0.

    capacity: tokens of a pack. multiple: segments are padded to it. window: samples that are looked at together.
    """

    def __init__(self, capacity: int, multiple: int = 1, window: int = 4000, algorithm: str = "best_fit_decreasing"):
        if window < 1:
            raise DataError(f"a window of {window} samples packs nothing: give at least 1, better a few thousand")
        if algorithm not in ALGORITHMS:
            raise DataError(f"--algorithm is {algorithm!r}: choose one of {', '.join(ALGORITHMS)}")
        self.capacity, self.multiple, self.window = capacity, multiple, window
        self._pack = ALGORITHMS[algorithm]
        self._numbers: list[int] = []  # of the samples that wait
        self._lengths: list[int] = []  # theirs, padded
        self._count = self._new = 0

    def add(self, lengths: Sequence[int] | np.ndarray) -> list[list[int]]:
        """The packs that are ready now: lists of sample numbers. lengths: tokens of the next samples."""
        added = padded_length(np.asarray(lengths, dtype=np.int64), self.multiple).tolist()
        self._numbers += range(self._count, self._count + len(added))
        self._lengths += added
        self._count += len(added)
        self._new += len(added)
        return self._give(last=False) if self._new >= self.window else []

    def finish(self) -> list[list[int]]:
        """The packs of whatever is left."""
        return self._give(last=True)

    def _give(self, last: bool) -> list[list[int]]:
        numbers, lengths = self._numbers, self._lengths
        packs = self._pack(lengths, self.capacity)
        waiting = set() if last else under_filled(packs, lengths, self.capacity)
        kept = sorted(index for which in waiting for index in packs[which])
        number = numbers.__getitem__
        given = [list(map(number, pack)) for which, pack in enumerate(packs) if which not in waiting]
        self._numbers, self._lengths = [numbers[index] for index in kept], [lengths[index] for index in kept]
        self._new = 0
        return given
