"""How many samples were dropped, in words, and when that ends a run: pure functions of FaultBoard's counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath

from nemo_amalia.data.faults.board import OTHER_SHARDS, QUARANTINED, REASONS

FEW = 1000  # samples: a source that has given fewer may drop what this many may, one at the default fraction of 0.1 %
SHOWN_SHARDS = 5

Counts = Mapping[str, Mapping[str, int]]


def merged(parts: Iterable[Counts]) -> dict[str, dict[str, int]]:
    """The sum of FaultBoard.by_source of several replicas."""
    found: dict[str, dict[str, int]] = {}
    for part in parts:
        for source, counts in part.items():
            mine = found.setdefault(source, {})
            for name, number in counts.items():
                mine[name] = mine.get(name, 0) + number
    return found


def dropped(counts: Mapping[str, int]) -> int:
    """Dropped samples of a source, for whatever reason."""
    return sum(counts[name] for name in REASONS)


def unplanned_drops(counts: Mapping[str, int]) -> int:
    """Dropped samples without those that the quarantine names, which are left out on purpose."""
    return dropped(counts) - counts[QUARANTINED]


def names(sources: Iterable[str]) -> dict[str, str]:
    """Data set folder -> its name, with as many parents as make it different from the others."""
    parts = {source: PurePath(source).parts[-4:] or (source,) for source in sources}
    found = {}
    for source, own in parts.items():
        depth = 1
        while depth < len(own) and sum(other[-depth:] == own[-depth:] for other in parts.values()) > 1:
            depth += 1
        found[source] = "/".join(own[-depth:])
    return found


def summary(counts: Mapping[str, int]) -> str:
    """`3 of 41,200 dropped (2 image, 1 too_long)`."""
    reasons = sorted((name for name in REASONS if counts[name]), key=lambda name: -counts[name])
    said = ", ".join(f"{counts[name]:,} {name}" for name in reasons)
    return f"{dropped(counts):,} of {counts['samples_in']:,} dropped ({said})"


def over_limit(sources: Counts, shards: Mapping[tuple[str, str], int], fraction: float) -> str | None:
    """The line that ends a run, on the source that dropped the largest fraction; None while none dropped too many.

    fraction: of the samples a source gave that may be dropped. The judgement is of max(samples, FEW): one bad sample of
    the first ten is no reason to stop, twenty are.
    """
    excess = {}
    for source, counts in sources.items():
        samples = counts["samples_in"] - counts[QUARANTINED]
        if unplanned_drops(counts) > fraction * max(samples, FEW):
            excess[source] = unplanned_drops(counts) / max(samples, 1)
    if not excess:
        return None
    source = max(excess, key=excess.get)
    others = f" ({len(excess) - 1} more sources did too)" if len(excess) > 1 else ""
    return (
        f"source {names(sources)[source]} dropped {excess[source]:.2%} of its samples and data.max_dropped_fraction "
        f"allows {fraction:.2%}{others}: {summary(sources[source])}; worst shards: {_worst(source, shards)}. Look at "
        "run_dir/quarantine, then fix the shards, leave the samples out with data.quarantine=, or raise the fraction"
    )


def _worst(source: str, shards: Mapping[tuple[str, str], int]) -> str:
    own = sorted(((n, shard) for (of, shard), n in shards.items() if of == source), reverse=True)
    said = ", ".join(f"{shard or 'unknown'} {number:,}" for number, shard in own[:SHOWN_SHARDS])
    if len(own) > SHOWN_SHARDS:
        said += f" and {len(own) - SHOWN_SHARDS} more"
    beyond = shards.get(("", OTHER_SHARDS), 0)
    return said + (f" (and {beyond:,} samples of any source in shards beyond the table)" if beyond else "")
