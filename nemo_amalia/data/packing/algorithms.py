"""Lengths -> packs. Pure functions, by name in ALGORITHMS.

Best-fit-decreasing fills best, and puts samples of like length into one pack: of lengths like the paper's, 76 % of
the variance lies between packs, where packs filled at random leave 43 %, balanced ones 33 % (benchmarks/packing.py).
A step of few packs then sees few kinds of samples. Balanced packs hold all lengths alike, for a few per cent of the
space. Both come out ordered, so they are shuffled.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Hashable, Sequence
from heapq import heapify, heapreplace

from nemo_amalia.utils.errors import DataError

SHIFT = 1 << 32  # more packs than a buffer ever makes
FULL = 0.98  # a pack that is filled less may wait
MOST_WAIT = 0.25  # of a buffer's samples


def padded_length(length: int, multiple: int) -> int:
    """`length` rounded up to `multiple` (2 * CP, so that context parallelism can cut each segment evenly)."""
    return -(-length // multiple) * multiple


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs of indices into `lengths`, each summing to at most `capacity`; every index occurs exactly once.

    Deterministic: equal lengths keep their order. Raises DataError on a length that is not in 1..capacity.
    """
    _check(lengths, capacity)
    packs: list[list[int]] = []
    free: list[int] = []  # space left * SHIFT + pack, sorted: a number is compared three times faster than a pair
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        taken = lengths[index] * SHIFT
        position = bisect_left(free, taken)
        if position == len(free):
            left = capacity * SHIFT + len(packs) - taken
            packs.append([index])
        else:
            left = free.pop(position) - taken
            packs[left % SHIFT].append(index)
        if left >= SHIFT:  # a full pack is not looked at again
            insort(free, left)
    return packs


def balanced(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """As few packs as hold the samples when each, longest first, goes into the emptiest; else as best_fit_decreasing.

    Packs of nearly one load and one mix of lengths.
    """
    _check(lengths, capacity)
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    count = -(-sum(lengths) // capacity)
    while (packs := _spread(order, lengths, capacity, count)) is None:
        count += 1
    return packs


def _spread(order: Sequence[int], lengths: Sequence[int], capacity: int, count: int) -> list[list[int]] | None:
    """``count`` packs, or None where a sample does not fit into the emptiest."""
    packs: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, pack) for pack in range(count)]
    heapify(loads)
    for index in order:
        load, pack = loads[0]
        if load + lengths[index] > capacity:
            return None
        packs[pack].append(index)
        heapreplace(loads, (load + lengths[index], pack))
    return packs


def under_filled(packs: Sequence[Sequence[int]], lengths: Sequence[int], capacity: int) -> set[int]:
    """Positions of the packs, emptiest first, that had better wait for more samples than be given out.

    Those filled less than FULL, as long as they hold at most MOST_WAIT of all samples: what is longer than half a pack
    never fills one, and must not pile up.
    """
    loads = [sum(map(lengths.__getitem__, pack)) for pack in packs]
    room, waiting = int(len(lengths) * MOST_WAIT), set()
    for which in sorted(range(len(packs)), key=loads.__getitem__):
        if loads[which] >= FULL * capacity or len(packs[which]) > room:
            break
        room -= len(packs[which])
        waiting.add(which)
    return waiting


#: data.packing_algorithm -> lengths, capacity -> packs.
ALGORITHMS = {"best_fit_decreasing": best_fit_decreasing, "balanced": balanced}


def _check(lengths: Sequence[int], capacity: int) -> None:
    if not lengths or (min(lengths) > 0 and max(lengths) <= capacity):
        return
    for index, length in enumerate(lengths):
        if not 0 < length <= capacity:
            raise DataError(
                f"item {index} has length {length} and a pack holds 1 to {capacity} tokens: "
                "raise seq_length, or drop the sample before packing"
            )


def shuffled(packs: Sequence[list[int]], seed: Hashable) -> list[list[int]]:
    """The packs in an order that depends on `seed` (an int or a string) alone."""
    order = list(packs)
    random.Random(seed).shuffle(order)
    return order


def fill(packs: Sequence[Sequence[int]], lengths: Sequence[int], capacity: int) -> float:
    """Share of the packs' space that holds tokens, 0 to 1."""
    used = sum(lengths[index] for pack in packs for index in pack)
    return used / (len(packs) * capacity) if packs else 0.0
