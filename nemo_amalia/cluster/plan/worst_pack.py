"""The micro-batch that costs a stage the most memory: full rows, with as many tiles as fit.

Which image gives the most tiles for its tokens is searched among those of ordinary shape: LLaVA-NeXT cuts the padding
of a canvas off again, so a long strip costs tiles and hardly a token. A pack of strips 48 times as long as high
holds two and a half times the tiles: the plan says what was assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch

from nemo_amalia.config.derived import segment_multiple
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.data.images.geometry import ImageGeometry
from nemo_amalia.data.loading.collator import Collator
from nemo_amalia.data.packing.algorithms import padded_length
from nemo_amalia.data.samples import PackedBatch, TokenizedPair, TokenizedSample
from nemo_amalia.data.settings import StreamSettings

LONGEST_SHAPE = 3.0  # the longer side of an image against its shorter one, at most
ANSWER = 64  # tokens of text beside the images of a sample


@dataclass(frozen=True)
class WorstPack:
    """Of one micro-batch. image: (width, height). images: in a sample. samples: with images, a row or pack in all;
    segment: tokens of each, padding included. rest: tokens that are left for a sample (or an answer) of text."""

    image: tuple[int, int]
    images: int
    samples: int
    segment: int
    rest: int
    tiles: int


@lru_cache(maxsize=32)
def worst_pack(
    geometry: ImageGeometry, seq_length: int, *, tiling: bool, packing: bool, rows: int, answers: int, multiple: int,
    shared: bool,
) -> WorstPack:  # fmt: skip
    """The image, of ordinary shape, that brings the most tiles into a micro-batch. answers: 2 for pairs, else 1."""
    sides = [geometry.tile * n // 4 for n in range(2, 49)] if tiling else [geometry.tile]
    found = []
    for image in ((w, h) for w in sides for h in sides if 1 / LONGEST_SHAPE <= w / h <= LONGEST_SHAPE):
        cost, tiles = geometry.num_tokens(*image, tiling), geometry.num_tiles(*image, tiling)
        images = 1 if packing else (seq_length - ANSWER) // cost
        segment = padded_length(images * cost + ANSWER, multiple) if packing else seq_length
        samples = seq_length // (segment * answers) if packing else rows
        rest = (seq_length - samples * segment * answers) // answers // multiple * multiple if packing else 0
        encoded = samples * images * tiles * (1 if shared else answers)
        found.append(WorstPack(image, images, samples, segment, rest, max(1, encoded)))
    return max(found, key=lambda pack: (pack.tiles, -pack.segment))


def worst_of(run: RunConfig, geometry: ImageGeometry) -> WorstPack:
    """The worst micro-batch of a run."""
    stage = run.stage
    return worst_pack(
        geometry,
        stage.seq_length,
        tiling=stage.tiling,
        packing=stage.packing,
        rows=stage.micro_batch_size,
        answers=2 if stage.sample_kind == "preferences" else 1,
        multiple=segment_multiple(run),
        shared=run.data.share_pair_images,
    )


def worst_batch(run: RunConfig, geometry: ImageGeometry, image_token_id: int, vocabulary: int) -> PackedBatch:
    """That micro-batch: conversations, or pairs whose images are encoded once for both answers."""
    stage, pack = run.stage, worst_of(run, geometry)
    sample = partial(_sample, geometry=geometry, tiling=stage.tiling, image_token_id=image_token_id)
    items: list = [sample(f"{n}", [pack.image] * pack.images, length=pack.segment) for n in range(pack.samples)]
    if pack.rest > 1:
        items.append(sample("text", [], length=pack.rest))
    if stage.sample_kind == "preferences":
        items = [TokenizedPair(item.key, item, item, segment_multiple(run)) for item in items]
    tiles = [
        torch.zeros(geometry.num_tiles(*pack.image, stage.tiling), 3, geometry.tile, geometry.tile, dtype=torch.uint8)
    ]
    collate = Collator(
        pad_token_id=min(2, vocabulary - 1),
        image_token_id=image_token_id,
        geometry=geometry,
        settings=StreamSettings.of(run),
    )
    return collate(items, [tiles * len(item.image_sizes) for item in items])


def _sample(key: str, sizes, *, length: int, geometry: ImageGeometry, tiling: bool, image_token_id: int):
    images = sum(geometry.num_tokens(*size, tiling) for size in sizes)
    ids = np.full(length, 0 if image_token_id else 1, dtype=np.int32)
    ids[:images] = image_token_id
    mask = (np.arange(length) >= images).astype(np.uint8)
    return TokenizedSample(key, "dryrun", ids, mask, (b"",) * len(sizes), tuple(sizes), tiling)
