"""The pairs of a data.path shard by shard, in packs, each pair once: what `amalia reference` goes through."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from nemo_amalia.config.derived import segment_multiple
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.data.encoding.hf_folder import image_statistics
from nemo_amalia.data.faults.board import FaultBoard
from nemo_amalia.data.loading.settings import StreamSettings, pack_parts
from nemo_amalia.data.samples import BadSampleError, Pack, PackedBatch
from nemo_amalia.data.shards.metadataset import read_sources
from nemo_amalia.data.shards.read import read_record, sample_offsets, training_shards
from nemo_amalia.utils.devices import has_gpu

PACKS_A_PASS = 8  # decoded at a time; a pipeline of stages is full with as many


def shards_of(run: RunConfig, chat: Any, geometry: Any, assets: Path, dropped: Counter[str]) -> dict[str, Callable]:
    """{name of a shard's part: its packs, a few at a time}.

    A pair that training would leave out is left out and counted in ``dropped``, by reason; one whose image cannot be
    decoded is, too. Raises DataError for data that is not ready.
    """
    mean, std = image_statistics(assets)
    settings = StreamSettings(
        geometry=geometry,
        chat=chat,
        seq_length=run.stage.seq_length,
        image_mean=mean,
        image_std=std,
        sample_kind="preferences",
        tiling=run.stage.tiling,
        segment_multiple=segment_multiple(run),
        max_image_pixels=run.data.max_image_pixels,
        decode_device="mixed" if has_gpu() else "cpu",
        num_workers=0,
    )
    found = {}
    for number, source in enumerate(read_sources(run.data.path)):
        names, excluded = training_shards(source.folder)
        for name in names:
            part = f"{number:03d}-{source.folder.name}-{name.replace('/', '-')}"
            found[part] = partial(_passes, source.folder, name, excluded, settings, dropped)
    return found


def _passes(
    folder: Path, shard: str, excluded: set[str], settings: StreamSettings, dropped: Counter[str]
) -> Iterator[list[PackedBatch]]:
    encoder, assemble = pack_parts(settings, FaultBoard(0))
    waiting: list[PackedBatch] = []
    for pack in _packs(_pairs(folder, shard, excluded, encoder, dropped), settings.seq_length):
        batch = assemble(pack)
        dropped["image"] += len(pack.samples) - (0 if batch is None else batch.num_pairs)
        waiting += [] if batch is None else [batch]
        if len(waiting) == PACKS_A_PASS:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _packs(pairs: Iterator[Any], length: int) -> Iterator[Pack]:
    """In order: how pairs share packs changes none of their log-probabilities."""
    pack: list[Any] = []
    for pair in pairs:
        if pack and sum(map(len, pack)) + len(pair) > length:
            yield Pack(tuple(pack))
            pack = []
        pack.append(pair)
    if pack:
        yield Pack(tuple(pack))


def _pairs(folder: Path, shard: str, excluded: set[str], encoder: Any, dropped: Counter[str]) -> Iterator[Any]:
    offsets = sample_offsets(folder / shard).tolist()
    descriptor = os.open(folder / shard, os.O_RDONLY)
    try:
        for start, end in zip(offsets[:-1], offsets[1:], strict=True):
            record = read_record(descriptor, shard, start, end - start)
            if record["__key__"] in excluded:
                continue
            try:
                yield encoder(encoder.cook(record))
            except BadSampleError as error:
                dropped[error.reason] += 1
    finally:
        os.close(descriptor)
