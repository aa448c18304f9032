"""The work of benchmarks/gpu_step.py: a slice of the 9B, and packs by the trainer's own packing and collator.

Lengths are those that `amalia plan` assumes; tiles are noise. Imports neither torch nor Megatron at the top.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nemo_amalia.config.compose import CONF

PACKS = 8  # different ones; as many as a step has, so that every step is the same work
FULL = CONF / "model" / "amalia_9b"


def write_architecture(folder: Path, layers: int | None, source: Path = FULL) -> Path:
    """``source``/config.json with so many decoder layers (None: its own) in ``folder``."""
    config = json.loads((source / "config.json").read_text())
    if layers:
        config["text_config"]["num_hidden_layers"] = layers
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def image_sizes(tile: int) -> list[tuple[int, int]]:
    """(width, height) of photographs of 4 to 3, in steps from 1,600 x 1,200 (for tiles of 384) down to one tile."""
    return [(tile * share // 96, tile * share // 128) for share in (400, 280, 200, 140, 96)]


def images_of(length: int, geometry, share: float) -> list[tuple[int, int]]:
    """Images whose tokens make up to ``share`` of a sample of ``length`` tokens, the largest first."""
    left, found = int(length * share), []
    for size in image_sizes(geometry.tile):
        cost = geometry.num_tokens(*size, True)
        while cost <= left:
            found.append(size)
            left -= cost
    return found


def pack_samples(lengths: Sequence[int], geometry, image_token_id: int, share: float) -> list[tuple]:
    """[(TokenizedSample, tiles)] of one pack: images first, then text; half of the text is answer."""
    import numpy as np
    import torch

    from nemo_amalia.data.samples import TokenizedSample

    made = []
    for number, length in enumerate(lengths):
        sizes = images_of(length, geometry, share)
        images = sum(geometry.num_tokens(*size, True) for size in sizes)
        ids = np.full(length, 7 if image_token_id != 7 else 8, dtype=np.int32)
        ids[:images] = image_token_id
        mask = (np.arange(length) >= (images + length) // 2).astype(np.uint8)
        shapes = [(geometry.num_tiles(*size, True), 3, geometry.tile, geometry.tile) for size in sizes]
        generator = torch.Generator().manual_seed(number)
        tiles = [torch.randint(256, shape, dtype=torch.uint8, generator=generator) for shape in shapes]
        sample = TokenizedSample(f"slice/{number}", "slice", ids, mask, (b"",) * len(sizes), tuple(sizes), True)
        made.append((sample, tiles))
    return made


def pack_lengths(seq_length: int) -> list[list[int]]:
    """Segment lengths of PACKS packs, evenly out of those that `amalia plan` assumes."""
    from nemo_amalia.cluster.plan.microbatch import assumed_packs

    packs = assumed_packs(seq_length)
    return [list(packs[number * len(packs) // PACKS]) for number in range(PACKS)]


def rows_of(run, shape):
    """What the plan is told of these packs: their own segments and tiles, nothing assumed."""
    from nemo_amalia.cluster.plan.microbatch import IMAGE_SHARE, ordinary_rows

    packs, geometry = pack_lengths(run.stage.seq_length), shape.geometry
    tiles = [
        sum(geometry.num_tiles(*size, True) for length in pack for size in images_of(length, geometry, IMAGE_SHARE))
        for pack in packs
    ]
    return replace(ordinary_rows(run, shape, packs), tiles=sum(tiles) / len(tiles))
