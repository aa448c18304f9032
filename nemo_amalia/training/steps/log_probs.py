"""Token losses of a micro-batch of pairs -> the log-probability of each answer, at any layout."""

from __future__ import annotations

import torch
from megatron.core.tensor_parallel.mappings import reduce_from_tensor_model_parallel_region
from torch import Tensor

from nemo_amalia.data.samples import PackedBatch


def segment_log_probs(token_losses: Tensor, loss_mask: Tensor, batch: PackedBatch, cp_group) -> Tensor:
    """Log-probability of each segment of pairs [2P], fp32, the same on every CP rank, from token losses [B, S / CP].

    CP gives each rank an equal share of every segment (model/context_parallel.py), so its bounds are cu_seqlens / CP.
    The all-reduce's gradient is the identity (Megatron's; torch.distributed.nn's would count it once a rank).
    """
    size, number = cp_group.size(), 2 * batch.num_pairs
    log_probs = -(token_losses.float() * loss_mask.float())
    if batch.cu_seqlens is None:
        sums = log_probs.sum(1)[:number]
    else:  # one sum a segment: a scatter would add in any order on a GPU, and a resume must be bit-equal
        lengths = (batch.cu_seqlens.diff() // size).tolist()
        pieces = [piece.sum() for piece in log_probs.view(-1).split(lengths)[:number]]
        sums = torch.stack(pieces) if pieces else log_probs.view(-1)[:0]  # a pack that lost all of its pairs
    return reduce_from_tensor_model_parallel_region(sums, group=cp_group) if size > 1 else sums
