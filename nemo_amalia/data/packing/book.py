"""What `amalia data pack` has read and packed so far: samples in columns, packs as positions, and the sums of both."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np

from nemo_amalia.data.packing.algorithms import padded_length
from nemo_amalia.data.packing.interleave import epoch_rows, separate, window_within_a_pass
from nemo_amalia.data.packing.measure import ShardLengths
from nemo_amalia.data.packing.windows import WindowPacker

OF_SAMPLES = ("offsets", "sizes", "lengths", "tokens", "loss_tokens", "image_tokens")


class Book:
    """Samples are rows, numbered as they were read: source after source, shard after shard."""

    def __init__(self, sources: int) -> None:
        # Arrays of machine integers: a list of millions of Python's would take gigabytes.
        self.columns = {name: array("q") for name in ("shards", *OF_SAMPLES)} | {"hashes": array("Q")}
        self.packed, self.counts = np.empty(0, dtype=np.int64), array("q")  # rows pack after pack, how many each has
        self.epoch = self.together = 0  # samples of an epoch; those in a pack with their own repetition
        self.ends: list[int] = []  # of the shards
        self.sizes = [0] * sources  # rows of each source
        self.shards, self.samples_in = [0] * sources, [0] * sources
        self.dropped: list[Counter[str]] = [Counter() for _ in range(sources)]
        self.examples: dict[str, str] = {}
        self.seconds = 0.0

    @property
    def samples(self) -> int:
        return len(self.columns["lengths"])

    def take(self, number: int, source: int, found: ShardLengths) -> None:
        """The samples of shard `number`, which is one of source `source`."""
        for name in (*OF_SAMPLES, "hashes"):
            self.columns[name].extend(getattr(found, name))
        self.columns["shards"].extend([number] * len(found.lengths))
        self.ends.append(self.samples)
        self.sizes[source] += len(found.lengths)
        self.shards[source] += 1
        self.samples_in[source] += found.samples_in
        self.dropped[source] += found.dropped
        self.examples = found.examples | self.examples

    def pack(self, packer: WindowPacker) -> None:
        """Packs every sample once, in the order of the shards; it comes to the packer shard by shard."""
        self._pack(packer, np.arange(self.samples), self.ends)

    def pack_epoch(self, packer: WindowPacker, repetitions: list[Fraction]) -> None:
        """Packs an epoch of several sources, window by window."""
        rows = epoch_rows(self.sizes, repetitions, np.asarray(self.columns["hashes"]))
        packer.window = window_within_a_pass(packer.window, len(rows), repetitions)
        self._pack(packer, rows, [*range(packer.window, len(rows), packer.window), len(rows)])
        lengths = padded_length(np.asarray(self.columns["lengths"]), packer.multiple)
        self.packed, self.together = separate(self.packed, np.asarray(self.counts), lengths, packer.capacity)

    def _pack(self, packer: WindowPacker, rows: np.ndarray, ends: list[int]) -> None:
        """The rows as they come to the packer: up to each of `ends`."""
        begin = time.process_time()
        order, start = array("q"), 0  # positions in rows
        lengths = np.asarray(self.columns["lengths"])[rows]
        for end in ends:
            self._keep(packer.add(lengths[start:end]), order)
            start = end
        self._keep(packer.finish(), order)
        self.epoch, self.packed = len(rows), rows[np.asarray(order)]
        self.seconds = time.process_time() - begin

    def _keep(self, packs: list[list[int]], order: array) -> None:
        for pack in packs:
            order.extend(pack)
            self.counts.append(len(pack))

    def of_sources(self, sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The same, each with its shards and samples, and what an epoch holds of it."""
        ends = np.cumsum(self.sizes)
        epoch = np.bincount(np.searchsorted(ends, self.packed, side="right"), minlength=len(sources))
        return [
            source
            | {
                "shards": self.shards[number],
                "samples_in": self.samples_in[number],
                "dropped": dict(sorted(self.dropped[number].items())),
                "samples": int(epoch[number]),
            }
            for number, source in enumerate(sources)
        ]

    def totals(self, seq_length: int) -> dict[str, Any]:
        """Raises RuntimeError when a sample was lost between the shards and the packs."""
        dropped = sum(self.dropped, Counter())
        if sum(self.samples_in) != self.samples + dropped.total() or len(self.packed) != self.epoch:
            raise RuntimeError(
                f"{sum(self.samples_in)} samples in, {self.samples} to pack, {dict(dropped)} dropped; "
                f"{self.epoch} of an epoch, {len(self.packed)} packed"
            )
        sums = {name: int(np.asarray(self.columns[name])[self.packed].sum()) for name in OF_SAMPLES[3:]}
        return {
            "samples_in": sum(self.samples_in),
            "dropped": dict(sorted(dropped.items())),
            "samples": len(self.packed),
            "packs": len(self.counts),
            "tokens": sums["tokens"],
            "loss_tokens": sums["loss_tokens"],
            "image_tokens": sums["image_tokens"],
            "fill": sums["tokens"] / (len(self.counts) * seq_length),
        } | ({"repeated_in_a_pack": self.together} if self.together else {})

    def arrays(self) -> dict[str, Any]:
        """The index's arrays: samples in the order of the packs."""
        arrays = {
            name: np.asarray(self.columns[name])[self.packed] for name in ("shards", "offsets", "sizes", "lengths")
        }
        return arrays | {"counts": np.asarray(self.counts)}

    def reasons(self) -> dict[str, int]:
        """Why samples were dropped, over all sources."""
        return dict(sum(self.dropped, Counter()))

    def first_example(self) -> str:
        """One message, for an error."""
        return next(iter(self.examples.values()), "it holds none")
