"""The forward step of stages 1 and 2: one micro-batch in, summed token losses out.

The loss is a sum over the micro-batch with its number of tokens beside it; Megatron divides by the tokens of the
whole global batch (``calculate_per_token_loss``): with context parallelism anything else is silently wrong
(docs/architecture.md, Data). Every field of PackedBatch is passed by name: Bridge's vlm_step drops visual kwargs that a
model does not name, without a word.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from megatron.bridge.training.losses import masked_next_token_loss
from megatron.bridge.training.state import GlobalState
from megatron.bridge.training.utils.pg_utils import get_pg_collection
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel.utils import is_pp_first_stage
from megatron.core.utils import unwrap_model

from nemo_amalia.data.images.decode import normalise
from nemo_amalia.data.samples import PackedBatch
from nemo_amalia.training.steps.counts import StepCounts
from nemo_amalia.utils.errors import UserError

if TYPE_CHECKING:
    from nemo_amalia.data.loading.stream import Stream


class NonFiniteLossError(UserError):
    """A loss that is NaN or infinite, with the step and the sample keys of the micro-batch."""


class SFTStep:
    """Callable in the form that Bridge's loop takes; ``counts`` collects what the micro-batches held."""

    def __init__(self, counts: StepCounts):
        self.counts = counts
        self._stream = None

    @property
    def loader(self) -> Stream | None:
        """This rank's stream; None before the first step, and for a stream that is not ours."""
        return getattr(self._stream, "loader", None)

    def __call__(self, state: GlobalState, data_iterator, model, return_schedule_plan: bool = False):
        """(loss of every token [B, S / CP], function that sums them) for the next micro-batch."""
        shared = getattr(data_iterator, "cache", None)  # virtual pipeline stages read one stream through a cache
        self._stream = getattr(data_iterator if shared is None else shared.iterator, "iterable", None)
        batch: PackedBatch = next(data_iterator)
        if getattr(unwrap_model(model), "vp_stage", None) in (None, 0):  # each virtual stage sees the micro-batch
            self.counts.add(batch)
        groups = get_pg_collection(model)
        inputs = model_inputs(batch, with_images=is_pp_first_stage(groups.pp))
        output, loss_mask = model(**inputs)
        return output, self.loss_function(batch, inputs, loss_mask, groups, state.train_state.step + 1)

    def loss_function(self, batch: PackedBatch, inputs: dict, loss_mask: torch.Tensor, groups, step: int):
        """What Megatron calls with the token losses of this micro-batch, on the last pipeline stage."""
        return partial(summed_loss, loss_mask, step=step, keys=batch.keys)


def model_inputs(batch: PackedBatch, with_images: bool) -> dict:
    """Arguments of AmaliaVLModel.forward, tensors on this rank's device; pixels only where the tower is."""
    device = torch.cuda.current_device()
    move = partial(torch.Tensor.to, device=device, non_blocking=True)
    packed = None
    if batch.cu_seqlens is not None:
        bounds = move(batch.cu_seqlens)
        packed = PackedSeqParams(
            qkv_format="thd",
            cu_seqlens_q=bounds,
            cu_seqlens_kv=bounds,
            cu_seqlens_q_padded=bounds,
            cu_seqlens_kv_padded=bounds,
            max_seqlen_q=batch.max_seqlen,
            max_seqlen_kv=batch.max_seqlen,
        )
    return {
        "input_ids": move(batch.tokens),
        "position_ids": move(batch.position_ids),
        "attention_mask": None,
        "labels": move(batch.labels),
        "loss_mask": move(batch.loss_mask),
        "pixel_values": normalise(move(batch.tiles), batch.image_mean, batch.image_std) if with_images else None,
        "image_sizes": batch.image_sizes,
        "tiles_per_image": batch.tiles_per_image,
        "image_order": batch.image_order,
        "packed_seq_params": packed,
    }


def summed_loss(loss_mask: torch.Tensor, output: torch.Tensor, *, step: int, keys: list[str]):
    """Bridge's masked sum of token losses. Raises NonFiniteLossError before the optimizer can use it."""
    loss, tokens, report = masked_next_token_loss(
        loss_mask, output, check_for_nan_in_loss=False, check_for_spiky_loss=False
    )
    refuse_non_finite(loss, step=step, keys=keys, what="samples")
    return loss, tokens, report


def refuse_non_finite(loss: torch.Tensor, *, step: int, keys: list[str], what: str) -> None:
    """Raise NonFiniteLossError for a loss that is NaN or infinite; ``what`` the keys are of: samples, or pairs."""
    if torch.isfinite(loss):
        return
    shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
    raise NonFiniteLossError(
        f"the loss is {loss.item()} at step {step}; its micro-batch holds the {what} {shown}: look at them with "
        "their keys, or lower stage.learning_rates, and start again from the last checkpoint"
    )
