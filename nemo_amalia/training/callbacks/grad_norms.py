"""The gradient norm of tower, connector and decoder, after a step of Megatron's optimizer."""

from __future__ import annotations

import torch
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.tensor_parallel import param_is_not_tensor_parallel_duplicate
from megatron.core.transformer.module import param_is_not_shared

from nemo_amalia.config.schema import MODULES
from nemo_amalia.model.freeze import module_of


def module_grad_norms(model: list, optimizer, total: float) -> dict[str, float]:
    """Norms by module whose squares sum to ``total`` squared, Megatron's norm before clipping; every rank calls it.

    Clipping has scaled all gradients in place by one factor, which the ratio to their present sum takes out again.
    """
    squares = grad_squares(model, optimizer)
    whole = float(squares.sum())
    scale = total * whole**-0.5 if whole > 0 else 0.0
    return {name: scale * float(square) ** 0.5 for name, square in zip(MODULES, squares, strict=True)}


@torch.no_grad()
def grad_squares(model: list, optimizer) -> torch.Tensor:
    """Sums of squares over the whole model, [tower, connector, decoder] in fp64, of what lies in the buffers now.

    A reduce-scatter leaves each rank of the distributed optimizer one valid part of each gradient; without it gradients
    are whole on every data-parallel rank, and Megatron's group for the sum leaves those out.
    """
    optimizers = getattr(optimizer, "chained_optimizers", [optimizer])
    shards = [one for one in optimizers if isinstance(one, DistributedOptimizer)]
    owned = {p: one._get_model_param_range_map(p)["param"] for one in shards for p in one.model_param_gbuf_map}
    squares = torch.zeros(len(MODULES), dtype=torch.float64, device=torch.cuda.current_device())
    for name, parameter in (named for chunk in model for named in chunk.named_parameters()):
        if not parameter.requires_grad or (shards and parameter not in owned):
            continue
        if param_is_not_shared(parameter) and param_is_not_tensor_parallel_duplicate(parameter):
            grad = parameter.main_grad.view(-1)
            mine = grad[owned[parameter].start : owned[parameter].end] if shards else grad
            squares[MODULES.index(module_of(name))] += mine.float().square().sum(dtype=torch.float64)
    torch.distributed.all_reduce(squares, group=optimizer.get_grad_stats_parallel_group())
    return squares
