"""Histograms, shares and packs as HTML and CSS bars: no script, legible at any width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from statistics import median

COLOURS = 7  # .c0 to .c6 in view.css; the last stands for the rest
BINS, FEW = 24, 14  # bars of a histogram at most; bars that are few enough to label each
PACKS, MORE_PACKS = 12, 48  # drawn at once, and drawn when asked for


def percent(share: float) -> str:
    """A share in 0..1 as "12.3 %", with a space that does not break."""
    return f"{share * 100:.1f}\N{NO-BREAK SPACE}%"


def bins(values: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first, last, count) of equal bins of a round width that cover the values, at most BINS of them."""
    low, high = min(values), max(values)
    width, steps = 1, (2, 2.5, 2)
    for turn in range(60):
        if high // width - low // width < BINS:
            break
        width = int(width * steps[turn % 3])
    counts = Counter(value // width for value in values)
    return [(n * width, n * width + width - 1, counts[n]) for n in range(low // width, high // width + 1)]


def histogram(title: str, values: Sequence[int]) -> str:
    """One figure; its text names median and extremes."""
    if not values:
        return f'<figure class="hist"><figcaption><b>{escape(title)}</b> <span>none</span></figcaption></figure>'
    bars = bins(values)
    highest = max(count for _, _, count in bars)
    summary = f"median {median(values):,.0f}, {min(values):,} to {max(values):,}"
    columns = []
    for first, last, count in bars:
        name = f"{first:,}" if first == last else f"{first:,} to {last:,}"
        label = f"<small>{first:,}</small>" if len(bars) <= FEW and first == last else ""
        number = f"<b>{count:,}</b>" if len(bars) <= FEW and count else ""
        columns.append(
            f'<div title="{name}: {count:,}">{number}<i style="height:{count / highest * 100:.2f}%"></i>{label}</div>'
        )
    axis = ""
    if len(bars) > FEW or bars[0][0] != bars[0][1]:
        axis = f'<p class="axis"><span>{bars[0][0]:,}</span><span>{bars[-1][1] + 1:,}</span></p>'
    return (
        f'<figure class="hist" role="img" aria-label="{escape(title)}: {summary}"><figcaption><b>{escape(title)}</b> '
        f'<span>{summary}</span></figcaption><div class="columns">{"".join(columns)}</div>{axis}</figure>'
    )


def colours(names: Sequence[str]) -> dict[str, int]:
    """A colour for each name, the most frequent first; all beyond the sixth share the last."""
    return {name: min(rank, COLOURS - 1) for rank, (name, _) in enumerate(Counter(names).most_common())}


def shares(title: str, names: Sequence[str]) -> str:
    """A bar whose parts are as wide as each name is frequent, and its key."""
    counts, colour = Counter(names).most_common(), colours(names)
    parts = "".join(f'<i class="c{colour[name]}" style="flex:{count}"></i>' for name, count in counts)
    keys = "".join(
        f'<li><i class="c{colour[name]}"></i>{escape(name or "(not named)")} '
        f"<b>{percent(count / len(names))}</b> <small>{count:,}</small></li>"
        for name, count in counts
    )
    return (
        f'<div class="shares"><h3>{escape(title)}</h3><div class="share" aria-hidden="true">{parts}</div>'
        f'<ul class="key">{keys}</ul></div>'
    )


def pack_bars(packs: list[list[int]], lengths: list[int], keys: list[str], sources: list[str], capacity: int) -> str:
    """One bar a pack: its segments in order, coloured by source, and what is free."""
    colour, rows = colours(sources), []
    for number, pack in enumerate(packs[: PACKS + MORE_PACKS]):
        used = sum(lengths[index] for index in pack)
        segments = "".join(
            f'<i class="c{colour[sources[index]]}" style="width:{lengths[index] / capacity * 100:.3f}%" '
            f'title="{escape(keys[index])}: {lengths[index]:,} tokens"></i>'
            for index in pack
        )
        text = f"{len(pack):,} segment{'s' * (len(pack) != 1)}, {percent(used / capacity)}"
        rows.append(
            f'<li><span>{number + 1}</span><div class="pack" role="img" aria-label="Pack {number + 1}: {text}">'
            f"{segments}</div><span>{text}</span></li>"
        )
    first, later = "".join(rows[:PACKS]), "".join(rows[PACKS:])
    more = f'<details><summary>{len(rows) - PACKS} packs more</summary><ol class="packs">{later}</ol></details>'
    rest = f'<p class="quiet">{len(packs) - len(rows):,} packs more are not drawn.</p>'
    return f'<ol class="packs">{first}</ol>{more if later else ""}{rest if len(packs) > len(rows) else ""}'
