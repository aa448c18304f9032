"""Tower and connector on the tensor-parallel ranks: replicated parameters, tiles shared out.

The tower is small beside the decoder (0.4 B against 9 B): splitting its matrices over TP would wait on the network in
every layer. Each TP rank holds all of it instead, encodes its share of the tiles, and one all-gather brings the
connector's tokens together. No peer trainer that we read does this.

Gradients. What follows the gather (splice, context-parallel slice, sequence-parallel scatter, decoder) gives every TP
rank the same gradient of the gathered tokens: the scatter's backward is an all-gather, the first column-parallel
layer's without SP an all-reduce. So the backward of the gather needs no communication: a rank takes its own slice.
A parameter's gradient is then a sum over ranks of partial sums. Megatron reduces it once a step in
``finalize_model_grads``, by the mean over TP of parameters marked ``average_gradients_across_tp_domain`` (which works
with and without SP, unlike the ``sequence_parallel`` mark). The slice is therefore multiplied by the TP size: the mean
of TP times the parts is their sum. Replicated encoding uses the same mark; the mean of equal gradients is
themselves, and keeps replicas equal where kernels are not deterministic.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


def mark_replicated(module: nn.Module) -> None:
    """Tells Megatron that the parameters below are whole on every TP rank, and that their gradients are averaged.

    Column- and row-parallel layers mark theirs as split even in a group of one; left so, the gradient norm would
    count them once a TP rank (``param_is_not_tensor_parallel_duplicate``).
    """
    for parameter in module.parameters():
        parameter.tensor_model_parallel = False
        parameter.partition_dim = -1
        parameter.average_gradients_across_tp_domain = True


@torch.no_grad()
def initialise_alike(module: nn.Module, std: float) -> None:
    """Draws every matrix below ``module`` from a normal distribution by the CPU's default generator.

    Megatron draws the weights of parallel layers from a state that differs between TP ranks; these are replicas.
    The default generator is the same on all of them.
    """
    for parameter in module.parameters():
        if parameter.dim() > 1:
            parameter.copy_(torch.empty(parameter.shape, device="cpu").normal_(0.0, std))


def share_of_tiles(pixel_values: Tensor, group: dist.ProcessGroup) -> Tensor:
    """This rank's contiguous part of the tiles [T, ...] -> [ceil(T / TP), ...], filled up with zero tiles."""
    size, rank = group.size(), group.rank()
    share = -(-pixel_values.shape[0] // size)
    mine = pixel_values[rank * share : (rank + 1) * share]
    missing = share - mine.shape[0]
    if missing:
        mine = torch.cat([mine, mine.new_zeros(missing, *mine.shape[1:])])
    return mine


class _GatherTiles(torch.autograd.Function):
    """All-gather along the tiles; backward: own slice times TP, to be averaged (see the top of this file)."""

    @staticmethod
    def forward(ctx, tokens: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group, ctx.share = group, tokens.shape[0]
        gathered = tokens.new_empty(group.size() * tokens.shape[0], *tokens.shape[1:])
        dist.all_gather_into_tensor(gathered, tokens.contiguous(), group=group)
        return gathered

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        start = ctx.group.rank() * ctx.share
        return gradient[start : start + ctx.share] * ctx.group.size(), None


def gather_tiles(tokens: Tensor, group: dist.ProcessGroup, tiles: int) -> Tensor:
    """The tokens of all ``tiles`` from the ranks' shares: [ceil(T / TP), m, h] -> [T, m, h]."""
    return _GatherTiles.apply(tokens, group)[:tiles]
