"""Bytes that a rank sends in a step, by what for. Rings: a gather or scatter over n ranks moves (n - 1) / n of it."""

from __future__ import annotations

from dataclasses import dataclass

from nemo_amalia.cluster.plan.flops import Rows
from nemo_amalia.cluster.plan.memory import value_bytes
from nemo_amalia.cluster.plan.shape import ModelShape
from nemo_amalia.cluster.plan.stages import Stage, micro_batches
from nemo_amalia.config.derived import model_ranks
from nemo_amalia.config.schema import RunConfig

GRADIENT_BYTES = 4  # reduced in fp32
# Of the hidden states, a layer: gather and scatter twice forward; the same backward, and two inputs gathered again for
# the weights' gradients (megatron/core/tensor_parallel/layers.py).
TENSOR_EXCHANGES, TENSOR_EXCHANGES_FORWARD = 10, 4


@dataclass(frozen=True)
class Traffic:
    """Bytes of a rank in a step. inside: over NVLink; across: between nodes."""

    name: str
    sent: float
    inside: bool


def traffic_of(
    run: RunConfig, shape: ModelShape, stage: Stage, rows: Rows, trained: float, held: float, world_size: int
) -> list[Traffic]:
    """By kind, for a rank of ``stage``. trained, held: parameters of the rank that learn, and all of them."""
    p, node, value = run.parallel, run.cluster.gpus_per_node or 1, value_bytes(run)
    batches, replicas = micro_batches(run, world_size), world_size // model_ranks(run)
    hidden = rows.tokens / p.context * shape.decoder.hidden * value
    found = []
    if p.tensor > 1:
        recompute = TENSOR_EXCHANGES_FORWARD if p.recompute == "full" else 0
        exchanges = stage.layers * (TENSOR_EXCHANGES + recompute)
        found.append(Traffic("tensor", batches * exchanges * hidden * _ring(p.tensor), p.tensor <= node))
        if stage.first and shape.tower is not None and rows.tiles and run.model.tower_data_parallel:
            tokens = rows.tiles * shape.patches * shape.decoder.hidden * value
            found.append(Traffic("tower", batches * tokens * _ring(p.tensor), p.tensor <= node))
    if p.context > 1:  # keys and values go round forward, they and their gradients backward
        pairs = rows.tokens / p.context * 2 * shape.decoder.key_value / p.tensor * value
        found.append(Traffic("context", batches * stage.layers * 3 * pairs * (p.context - 1),
                             p.tensor * p.context <= node))  # fmt: skip
    if p.pipeline > 1:
        cut = hidden / (p.tensor if p.sequence else 1)
        ends = 2 - stage.first - stage.last
        found.append(Traffic("pipeline", batches * 2 * stage.chunks * max(1, ends) * cut,
                             model_ranks(run) * replicas // p.pipeline < node))  # fmt: skip
    shards = replicas * p.context
    if shards > 1:
        inside = p.tensor * shards <= node and p.pipeline == 1
        found.append(Traffic("gradients", trained * GRADIENT_BYTES * _ring(shards), inside))
        found.append(Traffic("weights", trained * value * _ring(shards), inside))
    return found


def _ring(ranks: int) -> float:
    return (ranks - 1) / ranks
