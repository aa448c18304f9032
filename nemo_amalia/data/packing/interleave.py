"""In which order an epoch of several sources is packed: arithmetic on numbers, no file is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

NEAR = 100  # packs on either side, most of them of the same window


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
    """`window`, or less where an epoch of so many samples is so short that a window would hold two passes of a source:
    packing by length puts together what is equally long, a sample and its repetition first of all.
    """
    return max(1, min(window, samples // math.ceil(max(repetitions))))


def separate(rows: np.ndarray, counts: np.ndarray, lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """(rows, how often a pack still holds a row that it has already), a repetition being exchanged with a sample of a
    pack near by. rows: in the order of the packs; counts: of each pack; lengths: of every row, padded.

    Both packs stay within the capacity. What window_within_a_pass leaves to do: the partial pass, and what waited.
    """
    rows, left = rows.copy(), 0
    starts = np.concatenate([[0], np.cumsum(counts)])
    packs = [range(starts[number], starts[number + 1]) for number in range(len(counts))]
    free = [capacity - int(lengths[rows[pack.start : pack.stop]].sum()) for pack in packs]
    of_pack = np.repeat(np.arange(len(counts)), counts)
    _, first = np.unique(of_pack * (int(rows.max(initial=0)) + 1) + rows, return_index=True)
    for place in np.setdiff1d(np.arange(len(rows)), first).tolist():
        here = int(of_pack[place])
        if np.count_nonzero(rows[packs[here].start : packs[here].stop] == rows[place]) == 1:
            continue  # an earlier exchange took the other one away
        near = (here + sign * step for step in range(1, NEAR) for sign in (-1, 1))
        found = (
            (there, other)
            for there in near
            if 0 <= there < len(packs) and rows[place] not in rows[packs[there].start : packs[there].stop]
            for other in packs[there]
            if -free[here] <= lengths[rows[place]] - lengths[rows[other]] <= free[there]
            and rows[other] not in rows[packs[here].start : packs[here].stop]
        )
        there, other = next(found, (here, -1))
        if other < 0:
            left += 1
            continue
        more = int(lengths[rows[place]] - lengths[rows[other]])
        free[here], free[there] = free[here] + more, free[there] - more
        rows[place], rows[other] = rows[other], rows[place]
    return rows, left
