"""What an ordinary micro-batch of a stage holds: read from an index of packs, or assumed, and then printed as such."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from nemo_amalia.cluster.plan.flops import Rows
from nemo_amalia.cluster.plan.shape import ModelShape
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.data.packing.algorithms import best_fit_decreasing

# Tokens per sample in a mix like the paper's: log-normal, mean near 4,300 (tests/unit/data/packing/test_packing.py).
MEDIAN_LOG, SPREAD_LOG, SHORTEST = 8.1, 0.75, 50
SAMPLES = 2000  # drawn for the assumption
IMAGE_SHARE = 0.85  # ours: of a sample's tokens; a photograph of 1,600 x 1,200 takes 7,560, its questions some 100s
FILL_WITHOUT_PACKING = 0.35  # stage alignment, ours: 577 image tokens and a caption in a row of 2,048


def ordinary_rows(run: RunConfig, shape: ModelShape, packs: Sequence[Sequence[int]] | None = None) -> Rows:
    """The mean micro-batch. packs: lengths of the samples of each pack of an index; None: the assumption above."""
    stage = run.stage
    if not stage.packing:
        rows, length = stage.micro_batch_size, stage.seq_length
        return Rows(rows * length, [length] * rows, rows, FILL_WITHOUT_PACKING)
    found = packs if packs is not None else assumed_packs(stage.seq_length)
    used = sum(map(sum, found)) / len(found)
    # One segment whose square is the mean of the packs' squares: attention needs no more.
    squares = sum(length**2 for pack in found for length in pack) / len(found)
    number = used**2 / squares
    tokens_a_tile = _tokens_a_tile(shape)
    shared = 2 if stage.sample_kind == "preferences" and run.data.share_pair_images else 1
    tiles = used * IMAGE_SHARE / tokens_a_tile / shared if shape.tower is not None else 0.0
    return Rows(stage.seq_length, [used / number] * max(1, round(number)), tiles, used / stage.seq_length)


@lru_cache(maxsize=8)
def assumed_packs(seq_length: int) -> tuple[tuple[int, ...], ...]:
    """Packs of the assumed lengths, by the trainer's own packing."""
    draw = random.Random(0)
    lengths = [min(seq_length, max(SHORTEST, int(draw.lognormvariate(MEDIAN_LOG, SPREAD_LOG)))) for _ in range(SAMPLES)]
    return tuple(tuple(lengths[i] for i in pack) for pack in best_fit_decreasing(lengths, seq_length))


def _tokens_a_tile(shape: ModelShape) -> float:
    """Of a photograph of 4 to 3 that the largest grid takes."""
    if shape.geometry is None:
        return 1.0
    size = (1600, 1200)
    return shape.geometry.num_tokens(*size) / shape.geometry.num_tiles(*size)


def assumptions(run: RunConfig, rows: Rows, from_index: bool) -> list[str]:
    """What was taken for granted about the data, a line each."""
    if not run.stage.packing:
        return [f"rows of {run.stage.seq_length:,} tokens, one image each, {rows.filled:.0%} of them a sample's (ours)"]
    source = "of the index" if from_index else "log-normal, mean near 4,300 tokens (ours)"
    return [
        f"samples {source}: a pack {rows.filled:.1%} full, attention as of segments of {rows.segments[0]:,.0f} tokens",
        f"{IMAGE_SHARE:.0%} of the tokens are images (ours): {rows.tiles:.1f} tiles a pack",
    ]
