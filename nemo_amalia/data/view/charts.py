"""Histograms, shares and packs as numbers; templates/charts.html.j2 draws them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

COLOURS = 7  # .c0 to .c6 in view.css; the last stands for the rest
BINS, FEW = 24, 14  # bars of a histogram at most; bars that are few enough to label each
PACKS, MORE_PACKS = 12, 48  # drawn at once, and drawn on demand


@dataclass(frozen=True)
class Bar:
    """How many values lie in first..last."""

    first: int
    last: int
    number: int


@dataclass(frozen=True)
class Histogram:
    """One chart; `summary` names median and extremes. Without values it has no bars."""

    title: str
    summary: str
    bars: list[Bar]

    @property
    def highest(self) -> int:
        return max(bar.number for bar in self.bars)

    @property
    def few(self) -> bool:
        """Whether each bar has room for its number."""
        return len(self.bars) <= FEW

    @property
    def labelled(self) -> bool:
        """Whether each bar names its value; otherwise there is an axis."""
        return self.few and self.bars[0].first == self.bars[0].last


@dataclass(frozen=True)
class Part:
    """One name of a Shares chart: `number` samples, `share` of all in 0..1."""

    name: str
    number: int
    share: float
    colour: int


@dataclass(frozen=True)
class Shares:
    """How frequent each name is, the most frequent first."""

    title: str
    parts: list[Part]


@dataclass(frozen=True)
class Segment:
    """One sample in a pack; `share` is that of the pack's capacity, in 0..1."""

    key: str
    tokens: int
    share: float
    colour: int


@dataclass(frozen=True)
class PackBar:
    """One pack, its segments in order; `fill` in 0..1."""

    number: int
    fill: float
    segments: list[Segment]


@dataclass(frozen=True)
class PackList:
    """Packs that are drawn at once, those drawn on demand, and how many are not drawn."""

    first: list[PackBar]
    later: list[PackBar]
    rest: int


def bins(values: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (first, last, count) of equal bins of a round width that cover the values, at most BINS of them."""
    low, high = min(values), max(values)
    width, steps = 1, (2, 2.5, 2)
    for turn in range(60):
        if high // width - low // width < BINS:
            break
        width = int(width * steps[turn % 3])
    counts = Counter(value // width for value in values)
    return [(n * width, n * width + width - 1, counts[n]) for n in range(low // width, high // width + 1)]


def histogram(title: str, values: Sequence[int]) -> Histogram:
    """Count the values in bins."""
    if not values:
        return Histogram(title, "none", [])
    summary = f"median {median(values):,.0f}, {min(values):,} to {max(values):,}"
    return Histogram(title, summary, [Bar(*one) for one in bins(values)])


def colours(names: Sequence[str]) -> dict[str, int]:
    """Give each name a colour, the most frequent first; all beyond the sixth share the last."""
    return {name: min(rank, COLOURS - 1) for rank, (name, _) in enumerate(Counter(names).most_common())}


def shares(title: str, names: Sequence[str]) -> Shares:
    """Count the names."""
    colour = colours(names)
    counts = Counter(names).most_common()
    return Shares(title, [Part(name, number, number / len(names), colour[name]) for name, number in counts])


def pack_list(
    packs: list[list[int]], lengths: list[int], keys: list[str], sources: list[str], capacity: int
) -> PackList:
    """Lay out one bar per pack, coloured by source.

    Args:
        packs: indices into `lengths` (tokens), `keys` and `sources`.
        capacity: tokens of a pack.
    """
    colour, bars = colours(sources), []
    for number, pack in enumerate(packs[: PACKS + MORE_PACKS], 1):
        segments = [Segment(keys[i], lengths[i], lengths[i] / capacity, colour[sources[i]]) for i in pack]
        bars.append(PackBar(number, sum(lengths[i] for i in pack) / capacity, segments))
    return PackList(bars[:PACKS], bars[PACKS:], len(packs) - len(bars))
