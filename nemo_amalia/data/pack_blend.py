"""In which order an epoch of several sources is packed: arithmetic on numbers, no file is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np


def planned(samples: int, repetitions: Fraction) -> int:
    """Samples of an epoch: whole passes, and of the last one the fraction, rounded down (as Energon's one worker)."""
    return math.floor(samples * repetitions)


def epoch_rows(sizes: Sequence[int], repetitions: Sequence[Fraction], hashes: np.ndarray) -> np.ndarray:
    """[epoch's samples] int64: rows in the order in which windows are cut. sizes: samples of each source, whose rows
    follow each other; hashes: of each row, by content.

    Sample j of a source's n stands at (j + 1/2) / n of the epoch: every stretch holds all sources in proportion, within
    a sample of each. A repetition is a pass of its own after the one before, so that a sample and its repetition lie a
    pass apart. The last, partial pass takes the samples of the smallest hashes: the same ones whatever else is mixed.

    What is read together: within a source a window's samples are neighbours, as in one folder, in as many stretches as
    there are sources. A sample is one read of its own either way, some 100 KB, and epochs take the packs in a random
    order: source after source would save no read, and a window would hold one kind of data.
    """
    rows, places, first = [], [], 0
    for size, repeat in zip(sizes, repetitions, strict=True):
        number = planned(size, repeat)
        own = np.arange(first, first + size)
        left = number - number // max(size, 1) * size
        part = np.sort(np.argsort(hashes[own], kind="stable")[:left])
        rows.append(np.concatenate([np.tile(own, number // max(size, 1)), own[part]]))
        places.append((2 * np.arange(number) + 1) / (2 * max(number, 1)))
        first += size
    order = np.argsort(np.concatenate(places), kind="stable")  # where two stand at one place, the earlier source's
    return np.concatenate(rows)[order].astype(np.int64)


def window_within_a_pass(window: int, samples: int, repetitions: Sequence[Fraction]) -> int:
    """`window`, or less where it would hold a sample and its repetition, which could then sit in one pack."""
    most = math.ceil(max(repetitions))
    return window if most <= 1 else max(1, min(window, samples // most))


def repeated_in_a_pack(rows: np.ndarray, counts: np.ndarray) -> int:
    """Samples that sit in a pack that holds them already. rows: in the order of the packs; counts: of each pack."""
    of_pack = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return len(rows) - len(np.unique(of_pack * (int(rows.max(initial=0)) + 1) + rows))
