"""Precisions that cannot be, refused before any rank starts; called by validate. Reads no files."""

from __future__ import annotations

from nemo_amalia.config.precision import BLOCK, FP8_FORMATS, RECIPES, fp8_scaling
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.utils.errors import ConfigError

BLACKWELL = ("B100", "B200", "B300", "GB200", "GB300")  # what cluster.gpu may start with for mxfp8
FP8_GPUS = ("H100", "H200", "H800", "GH200", "L4", *BLACKWELL)  # compute capability 8.9 and above


def validate_precision(run: RunConfig) -> None:
    """Raise ConfigError with what was seen, what was expected and what to do."""
    precision = run.precision
    if precision.recipe not in RECIPES:
        raise ConfigError(f"precision.recipe is {precision.recipe!r}: choose one of {', '.join(RECIPES)}")
    if precision.fp8_scaling is not None:
        _own_scaling(run)
    scaling = fp8_scaling(precision)
    if scaling is None:
        _without_fp8(run)
        return
    if precision.fp8_format is not None and precision.fp8_format not in FP8_FORMATS:
        raise ConfigError(f"precision.fp8_format is {precision.fp8_format!r}: choose one of {', '.join(FP8_FORMATS)}")
    for name in ("first_layers_bf16", "last_layers_bf16"):
        count = getattr(precision, name)
        if count and scaling == "delayed":
            raise ConfigError(
                f"precision.{name} is {count} with delayed scaling, which has every layer in FP8 (Megatron-Core): set "
                "it to 0, or take precision=fp8_current"
            )
    _gpu(run, scaling)


def _own_scaling(run: RunConfig) -> None:
    precision = run.precision
    if precision.fp8_scaling not in BLOCK:
        raise ConfigError(f"precision.fp8_scaling is {precision.fp8_scaling!r}: choose one of {', '.join(BLOCK)}")
    if precision.recipe != "fp32":
        raise ConfigError(
            f"precision.fp8_scaling is {precision.fp8_scaling} and precision.recipe {precision.recipe} has its own: "
            "leave it out, or choose another precision="
        )


def _without_fp8(run: RunConfig) -> None:
    precision = run.precision
    fp8 = ("fp8_format", "fp8_parameters", "first_layers_bf16", "last_layers_bf16")
    given = [name for name in fp8 if getattr(precision, name)]
    if given:
        raise ConfigError(
            f"precision.{given[0]} is {getattr(precision, given[0])} and precision.recipe {precision.recipe} has no "
            "FP8: leave it out, or take precision=fp8_current"
        )


def _gpu(run: RunConfig, scaling: str) -> None:
    """The card must have the number format; nothing to check where cluster names none."""
    gpu = run.cluster.gpu
    if gpu is None:
        return
    if not gpu.startswith(FP8_GPUS):
        raise ConfigError(f"cluster.gpu is {gpu} and FP8 needs one of {', '.join(FP8_GPUS)}: take precision=bf16")
    if scaling == "mxfp8" and not gpu.startswith(BLACKWELL):
        raise ConfigError(
            f"cluster.gpu is {gpu} and mxfp8 needs Blackwell ({', '.join(BLACKWELL)}): take precision=fp8_blockwise or "
            "precision=fp8_current"
        )
