"""Forward passes of the reference over packs of pairs, by Megatron's schedules: the same code at every layout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.pipeline_parallel.utils import is_pp_first_stage, is_pp_last_stage

from nemo_amalia.data.samples import PackedBatch
from nemo_amalia.training.steps.dpo import answers_of
from nemo_amalia.training.steps.log_probs import segment_log_probs
from nemo_amalia.training.steps.sft import model_inputs


def reference_rows(model: list, batches: Sequence[PackedBatch], groups) -> dict[str, list] | None:
    """The columns of reference_file.SCHEMA for the pairs of ``batches``, in order; None before the last pipeline stage.

    model: of reference_model.frozen_model. Every rank of a replica calls it with the same batches.
    """

    def forward_step(iterator, part):
        batch = next(iterator)
        output, loss_mask = part(**model_inputs(batch, with_images=is_pp_first_stage(groups.pp)))

        def collect(batch, loss_mask, output, non_loss_data=True):
            return segment_log_probs(output, loss_mask, batch, groups.cp).cpu()

        return output, partial(collect, batch, loss_mask)

    stages = [iter(batches) for _ in model]
    with torch.no_grad():
        found = get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=stages if len(model) > 1 else stages[0],
            model=model if len(model) > 1 else model[0],
            num_microbatches=len(batches),
            seq_length=batches[0].tokens.shape[1],
            micro_batch_size=1,
            forward_only=True,
            collect_non_loss_data=True,
        )
    if not is_pp_last_stage(groups.pp):
        return None
    log_probs = torch.cat(found).view(-1, 2)
    tokens = torch.cat([answers_of(batch).tokens for batch in batches]).view(-1, 2)
    return {
        "key": [key for batch in batches for key in batch.keys],
        "chosen_logp": log_probs[:, 0].tolist(),
        "rejected_logp": log_probs[:, 1].tolist(),
        "chosen_tokens": tokens[:, 0].tolist(),
        "rejected_tokens": tokens[:, 1].tolist(),
    }
