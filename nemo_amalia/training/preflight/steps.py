"""stage.epochs -> stage.train_steps, and an index of packs that is not this run's refused before any rank starts.

Imports no Megatron and no torch: the launching side does it, and every rank again.
"""

from __future__ import annotations

import math
from pathlib import Path

from nemo_amalia.config.schema import RunConfig
from nemo_amalia.config.validation.run import pack_command
from nemo_amalia.data.packing.index import read_head, refuse_other, stage_settings
from nemo_amalia.data.settings import StreamSettings


def settle_steps(run: RunConfig) -> str | None:
    """Sets run.stage.train_steps where epochs are given, and returns the line that says so.

    Raises ConfigError for an index of other shards, or of packs that this stage does not have. Tokenizer and geometry
    are compared later, by the rank that has them.
    """
    if run.data.pack_index is None:
        return None
    head = read_head(run.data.pack_index, pack_command(run, run.data.pack_index))
    refuse_other(run.data.pack_index, head, stage_settings(StreamSettings.of(run)), Path(run.data.path))
    if run.stage.epochs is None:
        return None
    totals, batch = head["totals"], run.stage.global_batch_size
    steps = math.ceil(round(run.stage.epochs * totals["packs"], 6) / batch)
    run.stage.train_steps = steps
    more = steps * batch - run.stage.epochs * totals["packs"]
    return (
        f"[data] {run.stage.epochs:g} epochs of {totals['packs']:,} packs ({totals['tokens']:,} tokens, "
        f"{totals['loss_tokens']:,} to learn) are {steps:,} steps of {batch:,} packs"
        + (f"; {more:,.0f} packs of the next epoch fill the last step" if more >= 1 else "")
    )
