"""Bytes that the forward keeps for the backward, by what keeps them. Formulas alone; memory.py adds them up.

What Transformer Engine's layers keep was read off its source (see kernels.py) and `amalia dryrun` counts the same on
Megatron's own modules; tests/integration/test_plan_and_dryrun.py holds the two within 10 %.

Legend: h width, q query width, k key-value width, f MLP width, t tensor-parallel ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemo_amalia.cluster.plan.shape import ModelShape, TransformerShape

STATISTIC = 4  # bytes of an fp32 number that a norm or a softmax keeps


@dataclass(frozen=True)
class Keeping:
    """How a stack of layers runs. value: bytes of an activation. linear_input: bytes of what a linear keeps of its
    input for its weight's gradient (FP8: 1; frozen: 0). recompute: as parallel.recompute."""

    tensor: int
    sequence: bool
    value: int
    linear_input: float
    recompute: str
    recompute_layers: int


def layer_bytes(shape: TransformerShape, how: Keeping) -> float:
    """Of a layer, for one token."""
    t, tokens = how.tensor, how.tensor if how.sequence else 1
    norms = 2 * (shape.hidden * how.value + STATISTIC) / tokens
    normed = 2 * shape.hidden * how.linear_input / tokens
    if how.recompute == "selective":
        # Attention keeps its arguments alone; a checkpointed value is still a view of the whole of query, key, value.
        attention = (shape.query + shape.key_value + shape.query + 2 * shape.key_value) * how.value
        attention += shape.query * how.linear_input
    else:
        attention = (2 * shape.query + 2 * shape.key_value) * how.value + shape.heads * STATISTIC
    mlp = shape.ffn * (2 if shape.gated else 1) * how.value + shape.ffn * how.linear_input
    return norms + normed + (attention + mlp) / t


def stack_bytes(shape: TransformerShape, layers: int, how: Keeping) -> float:
    """Of ``layers`` layers, for one token, after the forward."""
    if how.recompute != "full":
        return layers * layer_bytes(shape, how)
    inputs = shape.hidden * how.value / (how.tensor if how.sequence else 1)
    return -(-layers // how.recompute_layers) * inputs


def recomputed_bytes(shape: TransformerShape, layers: int, how: Keeping) -> float:
    """For one token: what the backward builds again at once, with full recompute."""
    if how.recompute != "full" or not layers:
        return 0.0
    return min(layers, how.recompute_layers) * layer_bytes(shape, how)


def connector_bytes(shape: ModelShape, value: int) -> float:
    """Of the MLP connector, for one patch: its input, what the activation took, and what it gave."""
    return (shape.tower.hidden + 2 * shape.decoder.hidden) * value if shape.tower else 0.0


def output_bytes(shape: ModelShape, how: Keeping) -> float:
    """Of the final norm, the logits and their loss, for one token, while the loss is computed.

    The cross entropy works on an fp32 copy of the logits (Megatron's, fused or not), beside the bf16 ones.
    """
    tokens = how.tensor if how.sequence else 1
    norm = (shape.decoder.hidden * (how.value + how.linear_input) + STATISTIC) / tokens
    return norm + shape.vocabulary / how.tensor * (how.value + 4)
