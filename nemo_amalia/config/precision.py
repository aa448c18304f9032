"""What FP8 asks of a run: which recipes there are, and the number of tokens that must divide what a rank holds.

Sources: Megatron Bridge 0.6.2 ``training/mixed_precision.py`` (names and formats), Megatron-Core 0.19.2
``core/fp8_utils.get_fp8_align_size`` (16, and 32 for mxfp8), Transformer Engine ``Float8BlockQuantizer.is_quantizable``
(128). tests/unit/training/setup/test_precision.py compares this table with the installed packages.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemo_amalia.config.schema import PrecisionConfig

FP8_FORMATS = ("hybrid", "e4m3")  # hybrid: e4m3 forward, e5m2 for the gradients


@dataclass(frozen=True)
class Recipe:
    """One of Megatron Bridge's recipes. scaling: Megatron's name of the FP8 recipe; format: that Bridge gives it."""

    scaling: str | None = None
    format: str | None = None


RECIPES = {
    "fp32": Recipe(),  # the one that is not Bridge's
    "bf16_mixed": Recipe(),
    "bf16_with_fp8_delayed_scaling_mixed": Recipe("delayed", "hybrid"),
    "bf16_with_fp8_current_scaling_mixed": Recipe("tensorwise", "hybrid"),
    "bf16_with_fp8_subchannel_scaling_mixed": Recipe("blockwise", "hybrid"),
    "bf16_with_mxfp8_mixed": Recipe("mxfp8", "e4m3"),
}
# Tokens (and features) that a matrix product takes at a time: both extents of every FP8 tensor on a rank.
BLOCK = {"delayed": 16, "tensorwise": 16, "blockwise": 128, "mxfp8": 32}
USERBUFFERS_BLOCK = 128  # mxfp8's under parallel.overlap_tensor (fill_userbuffers_buffer_for_all_gather)


def fp8_scaling(precision: PrecisionConfig) -> str | None:
    """delayed, tensorwise, blockwise or mxfp8; None without FP8."""
    return precision.fp8_scaling or RECIPES[precision.recipe].scaling


def fp8_format(precision: PrecisionConfig) -> str | None:
    """hybrid or e4m3; None without FP8."""
    if fp8_scaling(precision) is None:
        return None
    return precision.fp8_format or RECIPES[precision.recipe].format or "hybrid"
