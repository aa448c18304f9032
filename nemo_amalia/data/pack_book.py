"""What `amalia data pack` has read and packed so far: samples in columns, packs as positions, and the sums of both."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from typing import Any

import numpy as np

from nemo_amalia.data.pack_blend import repeated_in_a_pack
from nemo_amalia.data.pack_measure import ShardLengths
from nemo_amalia.data.pack_windows import WindowPacker

OF_SAMPLES = ("offsets", "sizes", "lengths", "loss_tokens", "image_tokens")


class Book:
    """Samples are rows, numbered as they were read: source after source, shard after shard."""

    def __init__(self, sources: int) -> None:
        # Arrays of machine integers: a list of millions of Python's would take gigabytes.
        self.columns = {name: array("q") for name in ("shards", *OF_SAMPLES)} | {"hashes": array("Q")}
        self.order, self.counts = array("q"), array("q")  # positions of `rows` pack after pack, how many each has
        self.rows = np.empty(0, dtype=np.int64)
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

    def pack(self, packer: WindowPacker, rows: np.ndarray, ends: list[int]) -> None:
        """Packs the rows, in their order, as they come to the packer: up to each of `ends`."""
        begin = time.process_time()
        self.rows, start = rows, 0
        lengths = np.asarray(self.columns["lengths"])[rows]
        for end in ends:
            self._keep(packer.add(lengths[start:end]))
            start = end
        self._keep(packer.finish())
        self.seconds = time.process_time() - begin

    def _keep(self, packs: list[list[int]]) -> None:
        for pack in packs:
            self.order.extend(pack)
            self.counts.append(len(pack))

    def all(self) -> np.ndarray:
        """Every row once, as it was read: the epoch of one folder."""
        return np.arange(self.samples)

    def hashes(self) -> np.ndarray:
        """[rows] uint64, of the names of the samples."""
        return np.asarray(self.columns["hashes"])

    def of_sources(self, sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The same, each with its shards and samples, and what an epoch holds of it."""
        ends = np.cumsum(self.sizes)
        epoch = np.bincount(np.searchsorted(ends, self.rows, side="right"), minlength=len(sources))
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

    def packed_rows(self) -> np.ndarray:
        """Rows in the order of the packs."""
        return self.rows[np.asarray(self.order)]

    def totals(self, seq_length: int) -> dict[str, Any]:
        """Raises RuntimeError when a sample was lost between the shards and the packs."""
        dropped = sum(self.dropped, Counter())
        if sum(self.samples_in) != self.samples + dropped.total() or len(self.order) != len(self.rows):
            raise RuntimeError(
                f"{sum(self.samples_in)} samples in, {self.samples} to pack, {dict(dropped)} dropped; "
                f"{len(self.rows)} of an epoch, {len(self.order)} packed"
            )
        repeated = repeated_in_a_pack(self.packed_rows(), np.asarray(self.counts))
        sums = {name: int(np.asarray(self.columns[name])[self.rows].sum()) for name in OF_SAMPLES[2:]}
        return {
            "samples_in": sum(self.samples_in),
            "dropped": dict(sorted(dropped.items())),
            "samples": len(self.order),
            "packs": len(self.counts),
            "tokens": sums["lengths"],
            "loss_tokens": sums["loss_tokens"],
            "image_tokens": sums["image_tokens"],
            "fill": sums["lengths"] / (len(self.counts) * seq_length),
        } | ({"repeated_in_a_pack": repeated} if repeated else {})

    def arrays(self) -> dict[str, Any]:
        """The index's arrays: samples in the order of the packs."""
        rows = self.packed_rows()
        arrays = {name: np.asarray(self.columns[name])[rows] for name in ("shards", "offsets", "sizes", "lengths")}
        return arrays | {"counts": np.asarray(self.counts)}

    def reasons(self) -> dict[str, int]:
        """Why samples were dropped, over all sources."""
        return dict(sum(self.dropped, Counter()))

    def first_example(self) -> str:
        """One message, for an error."""
        return next(iter(self.examples.values()), "it holds none")
