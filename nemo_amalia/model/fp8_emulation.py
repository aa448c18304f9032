"""FP8 training as Transformer Engine does it, computed on any device: quantise, multiply in fp32, dequantise.

What is emulated: every matrix product of a decoder's linear layer takes both operands in FP8 and adds up in fp32.
Forward X and W in e4m3; backward dY in e5m2 ("hybrid") or e4m3, with the SAME quantised W in dgrad and X in wgrad. The
rounding itself has gradient one. Scales are Transformer Engine's (common/recipe/recipe_common.cuh):

- tensorwise (Float8CurrentScaling): largest FP8 value / largest absolute value of the tensor, in fp32.
- blockwise (Float8BlockScaling): the same for 1 x 128 values of X and dY and 128 x 128 of W, rounded down to a power of
  two. The blocks of X and dY lie along the axis that is summed over, so wgrad has other blocks than fprop and dgrad.

Under sequence parallelism Transformer Engine takes the largest value of X (column-parallel) and dY (row-parallel) over
the TP group. Here both are gathered first, so the scale is that of the whole tensor without asking. W, and what TP
splits by features, are scaled by each rank alone, there as here: TP 2 is not bit-equal to TP 1.

Not emulated: delayed scaling's history and mxfp8; a tensor whose extents are no multiple of a block (Transformer Engine
refuses it; here the last block is smaller).

Legend: S tokens, B rows, I and O features in and out, K the axis that is summed over.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from nemo_amalia.utils.errors import ConfigError

FORWARD, GRADIENT = torch.float8_e4m3fn, {"hybrid": torch.float8_e5m2, "e4m3": torch.float8_e4m3fn}
BLOCK = 128
SCALINGS = ("tensorwise", "blockwise")


@dataclass(frozen=True)
class Fp8Settings:
    """scaling: of SCALINGS. gradient: torch's float8 type of dY. The blocks are None for one scale a tensor."""

    scaling: str
    gradient: torch.dtype

    def __post_init__(self):
        blocks = self.scaling == "blockwise"
        object.__setattr__(self, "along_rows", (1, BLOCK) if blocks else None)
        object.__setattr__(self, "along_columns", (BLOCK, 1) if blocks else None)
        object.__setattr__(self, "square", (BLOCK, BLOCK) if blocks else None)

    @classmethod
    def of(cls, config: TransformerConfig) -> Fp8Settings:
        """What ``config.fp8`` and ``config.fp8_recipe`` say. Raises ConfigError for what is not emulated."""
        scaling = getattr(config.fp8_recipe, "value", config.fp8_recipe)  # Megatron's enum, or its name
        if scaling not in SCALINGS:
            raise ConfigError(
                f"fp8_recipe is {scaling!r} and without Transformer Engine FP8 is emulated for "
                f"{', '.join(SCALINGS)}: take precision=fp8_current or precision=fp8_blockwise"
            )
        return cls(scaling, GRADIENT[config.fp8])


def scale_of(amax: Tensor, dtype: torch.dtype, power_of_two: bool) -> Tensor:
    """What values are multiplied by before rounding: fp32, from their largest absolute value; 1 where that is 0."""
    largest = torch.finfo(dtype).max
    scale = largest / amax.float()
    scale = torch.where(torch.isinf(scale), torch.finfo(torch.float32).max, scale)
    if power_of_two:  # the mantissa's bits away, as Transformer Engine does
        scale = (scale.view(torch.int32) & -(1 << 23)).view(torch.float32)
    return torch.where((amax > 0) & torch.isfinite(amax), scale, torch.ones_like(scale))


def quantise(x: Tensor, dtype: torch.dtype, block: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """x [M, N] as FP8 numbers [M, N], and what they were multiplied by: one number, or one a block (rows, columns)."""
    x, largest = x.float(), torch.finfo(dtype).max
    if block is None:
        scale = scale_of(x.abs().amax(), dtype, power_of_two=False)
    else:
        (height, width), (rows, columns) = x.shape, block
        padded = F.pad(x, (0, -width % columns, 0, -height % rows))
        blocks = padded.unflatten(1, (-1, columns)).unflatten(0, (-1, rows))  # [M / rows, rows, N / columns, columns]
        scale = scale_of(blocks.abs().amax(dim=(1, 3)), dtype, power_of_two=True)
    return (x * _spread(scale, x, block)).clamp(-largest, largest).to(dtype), scale


def dequantise(data: Tensor, scale: Tensor, block: tuple[int, int] | None = None) -> Tensor:
    """The numbers that ``quantise`` kept: fp32 [M, N]."""
    return data.float() * _spread(1 / scale, data, block)


def _spread(scale: Tensor, x: Tensor, block: tuple[int, int] | None) -> Tensor:
    """A block's number for each of its values."""
    for axis, size in enumerate(block or ()):
        if size > 1:
            scale = scale.repeat_interleave(size, axis).narrow(axis, 0, x.shape[axis])
    return scale


class _Product(torch.autograd.Function):
    """x [N, I], weight [O, I] -> [N, O]. Keeps X in FP8, and the weight as it is: it is rounded again, to the same."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, settings: Fp8Settings) -> Tensor:
        ctx.settings, ctx.type = settings, x.dtype
        by_row = quantise(x, FORWARD, settings.along_rows)
        by_column = by_row
        if settings.along_columns and ctx.needs_input_grad[1]:
            by_column = quantise(x, FORWARD, settings.along_columns)
        ctx.save_for_backward(weight, *(by_column if ctx.needs_input_grad[1] else ()))
        return (dequantise(*by_row, settings.along_rows) @ _weight(weight, settings).t()).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        settings, (weight, *kept) = ctx.settings, ctx.saved_tensors
        dgrad = wgrad = None
        by_row = quantise(gradient, settings.gradient, settings.along_rows)
        if ctx.needs_input_grad[0]:
            dgrad = (dequantise(*by_row, settings.along_rows) @ _weight(weight, settings)).to(ctx.type)
        if ctx.needs_input_grad[1]:
            columns = settings.along_columns
            by_column = quantise(gradient, settings.gradient, columns) if columns else by_row
            wgrad = (dequantise(*by_column, columns).t() @ dequantise(*kept, columns)).to(weight.dtype)
        return dgrad, wgrad, None


def _weight(weight: Tensor, settings: Fp8Settings) -> Tensor:
    return dequantise(*quantise(weight, FORWARD, settings.square), settings.square)


def fp8_linear(x: Tensor, weight: Tensor, settings: Fp8Settings) -> Tensor:
    """x [..., I], weight [O, I] -> [..., O] in x's type."""
    return _Product.apply(x.flatten(0, -2), weight, settings).unflatten(0, x.shape[:-1])


class Fp8Emulation:
    """Mixed in before a Megatron-Core linear: its products in FP8, by ``config.fp8`` and ``config.fp8_recipe``."""

    def __init__(self, *args, config: TransformerConfig, **kwargs):
        super().__init__(*args, config=config, **kwargs)
        self.fp8 = Fp8Settings.of(config)

    def _forward_impl(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        allreduce_dgrad: bool = False,
        sequence_parallel: bool = False,
        tp_group=None,
        **_,
    ) -> Tensor:
        """As Megatron-Core's: input [S, B, I], the rank's part of S under sequence parallelism -> [S_full, B, O]."""
        if sequence_parallel:
            input = gather_from_sequence_parallel_region(input, group=tp_group)
        elif allreduce_dgrad:
            input = copy_to_tensor_model_parallel_region(input, group=tp_group)
        output = fp8_linear(input, weight, self.fp8)
        return output if bias is None else output + bias


class Fp8ColumnParallelLinear(Fp8Emulation, ColumnParallelLinear):
    """Megatron-Core's column-parallel linear in emulated FP8."""


class Fp8RowParallelLinear(Fp8Emulation, RowParallelLinear):
    """Megatron-Core's row-parallel linear in emulated FP8."""
