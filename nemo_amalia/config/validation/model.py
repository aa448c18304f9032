"""What a layout asks of the model's own sizes, which only its checkpoint knows. Imports no Megatron.

The layout's own numbers are checked before (config/validation/layout.py), without the checkpoint.
"""

from __future__ import annotations

from typing import Protocol

from nemo_amalia.config.precision import BLOCK, fp8_scaling
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.utils.errors import ConfigError


class DecoderSizes(Protocol):
    """The sizes that a layout must divide, under the names of Megatron's model providers."""

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    num_query_groups: int | None
    kv_channels: int | None
    vocab_size: int


def check_model_layout(run: RunConfig, model: DecoderSizes, engine: bool = False) -> None:
    """Raise ConfigError where the model's own sizes do not divide as the layout, or FP8, asks.

    engine: Transformer Engine computes, whose FP8 takes whole blocks; the emulation takes any size.
    """
    tensor = run.parallel.tensor
    sizes = {
        "attention heads": model.num_attention_heads,
        "key-value heads": model.num_query_groups or model.num_attention_heads,
        "vocabulary entries": model.vocab_size,
        "MLP width": model.ffn_hidden_size,
    }
    for name, size in sizes.items():
        if size % tensor:
            raise ConfigError(
                f"the model has {size} {name}, parallel.tensor is {tensor} and does not divide them: choose another"
            )
    stages = stage_layers(run, model.num_layers)
    _check_bf16_layers(run, model.num_layers, min(stages))
    if engine and fp8_scaling(run.precision):
        _check_blocks(run, model)


def stage_layers(run: RunConfig, layers: int) -> list[int]:
    """Decoder layers of every pipeline stage, as Megatron-Core shares them out. Raises ConfigError where it cannot."""
    p = run.parallel
    first, last = p.first_stage_layers, p.last_stage_layers
    middle = p.pipeline - (first is not None) - (last is not None)
    left = layers - (first or 0) - (last or 0)
    chunks = p.virtual_pipeline or 1
    if left < 0 or bool(left) != bool(middle) or (middle and left % (middle * chunks)):
        taken = "" if first is last is None else f" less those of the ends ({first} and {last}) = {left}"
        raise ConfigError(
            f"the model has {layers} decoder layers{taken}, and {middle} pipeline stages x virtual_pipeline {chunks} "
            "do not divide them: choose another parallel.pipeline, virtual_pipeline, first_stage_layers or "
            "last_stage_layers"
        )
    ends = [[] if end is None else [end] for end in (first, last)]
    return ends[0] + [left // middle] * middle + ends[1] if middle else ends[0] + ends[1]


def _check_bf16_layers(run: RunConfig, layers: int, fewest: int) -> None:
    """Megatron-Core wants the layers without FP8 of one end on one stage (TransformerConfig.__post_init__)."""
    allowed = min(fewest, layers // run.parallel.pipeline)
    for name in ("first_layers_bf16", "last_layers_bf16"):
        count = getattr(run.precision, name)
        if count > allowed:
            raise ConfigError(
                f"precision.{name} is {count} and the smallest pipeline stage has {allowed} of the model's {layers} "
                f"layers: set it to at most {allowed}"
            )


def _check_blocks(run: RunConfig, model: DecoderSizes) -> None:
    """Both extents of every weight on a rank are whole blocks of the FP8 recipe."""
    scaling, tensor = fp8_scaling(run.precision), run.parallel.tensor
    block, heads = BLOCK[scaling], model.kv_channels or model.hidden_size // model.num_attention_heads
    groups = model.num_query_groups or model.num_attention_heads
    widths = {
        "hidden size": model.hidden_size,
        "MLP width / parallel.tensor": model.ffn_hidden_size // tensor,
        "query width / parallel.tensor": heads * model.num_attention_heads // tensor,
        "query, key and value width / parallel.tensor": heads * (model.num_attention_heads + 2 * groups) // tensor,
    }
    for name, width in widths.items():
        if width % block:
            raise ConfigError(
                f"the model's {name} is {width} and FP8 {scaling} takes multiples of {block}: lower parallel.tensor, "
                "or take precision=fp8_current or precision=bf16"
            )
