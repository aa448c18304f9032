"""Memory of every pipeline stage: weights, gradients, optimizer, activations. Pure numbers: no torch, milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nemo_amalia.cluster.plan.activations import (
    Keeping,
    connector_bytes,
    output_bytes,
    recomputed_bytes,
    stack_bytes,
)
from nemo_amalia.cluster.plan.shape import ModelShape
from nemo_amalia.cluster.plan.stages import Stage, stages_of
from nemo_amalia.cluster.plan.worst_pack import worst_of
from nemo_amalia.config.derived import model_ranks
from nemo_amalia.config.precision import fp8_scaling
from nemo_amalia.config.schema import RunConfig

FP8_COPIES = 2  # bytes of a weight
GRADIENT = 4  # bytes; grad_reduce_in_fp32
OPTIMIZER = 12  # bytes: fp32 master weight and two moments (Megatron's distributed optimizer)
OPTIMIZER_FP32 = 8  # two moments beside weights that are fp32 already


@dataclass(frozen=True)
class StageMemory:
    """Bytes of one rank of a stage. parts: of the activations, by what keeps them. copies: of the matrices in FP8, with
    their transposes, which Transformer Engine keeps from a step's first micro-batch to its last."""

    stage: Stage
    parameters: float
    weights: float
    gradients: float
    optimizer: float
    activations: float
    parts: dict[str, float]
    copies: float = 0.0

    @property
    def total(self) -> float:
        """What its tensors hold at once, at most."""
        return self.weights + self.copies + self.gradients + self.optimizer + self.activations


def memory_of(
    run: RunConfig, shape: ModelShape, world_size: int, rank_parameters: dict[str, int] | None = None
) -> list[StageMemory]:
    """Of each stage, for the worst micro-batch (worst_pack.py).

    rank_parameters: what a tensor-parallel rank holds, by part, counted on the module (parameters.py); None: reckoned.
    """
    own = rank_parameters or split_parameters(shape, run.parallel.tensor)
    return [_stage(run, shape, world_size, stage, own) for stage in stages_of(run, shape, world_size)]


def split_parameters(shape: ModelShape, tensor: int) -> dict[str, int]:
    """What a tensor-parallel rank holds, by part: matrices of the decoder are cut, the rest is whole."""
    whole, d = shape.parameters(), shape.decoder
    return {
        **whole,
        "embedding": whole["embedding"] // tensor,
        "output": whole["output"] // tensor,
        "layer": d.layer_matrices // tensor + 2 * d.hidden,
    }


def parameters_of(stage: Stage, own: dict[str, int], modules: tuple[str, ...] | list[str] | None = None) -> int:
    """Of a stage's rank. modules: of tower, connector, decoder; None: all of them."""
    found = {"tower": 0, "connector": 0, "decoder": stage.layers * own["layer"]}
    if stage.first:
        found["tower"], found["connector"] = own["tower"], own["connector"]
        found["decoder"] += own["embedding"]
    if stage.last:
        found["decoder"] += own["norm"] + own["output"]
    return sum(found[name] for name in (found if modules is None else modules))


def keeping_of(run: RunConfig) -> Keeping:
    """How the decoder of this run keeps activations."""
    p, value = run.parallel, value_bytes(run)
    trains = "decoder" in run.stage.trainable
    linear = 0.0 if not trains else 1.0 if uses_fp8(run) else float(value)
    return Keeping(p.tensor, p.sequence, value, linear, p.recompute, p.recompute_layers)


def value_bytes(run: RunConfig) -> int:
    """Bytes of a weight or an activation."""
    return 4 if run.precision.recipe == "fp32" else 2


def uses_fp8(run: RunConfig) -> bool:
    """Whether the linears of the decoder run in FP8."""
    return fp8_scaling(run.precision) is not None


def bf16_layers(run: RunConfig, stage: Stage) -> int:
    """Decoder layers of a stage that an FP8 recipe leaves in bf16; none without FP8."""
    p = run.precision
    count = (p.first_layers_bf16 if stage.first else 0) + (p.last_layers_bf16 if stage.last else 0)
    return min(stage.layers, count) if uses_fp8(run) else 0


def _stage(run: RunConfig, shape: ModelShape, world: int, stage: Stage, own: dict[str, int]) -> StageMemory:
    p, value = run.parallel, value_bytes(run)
    total, trained = parameters_of(stage, own), parameters_of(stage, own, run.stage.trainable)
    shards = world // model_ranks(run) * p.context if p.distributed_optimizer else 1
    parts = _activations(run, shape, stage)
    matrices = shape.decoder.layer_matrices / p.tensor
    return StageMemory(
        stage,
        parameters=total,
        weights=total * value,
        gradients=trained * GRADIENT,
        optimizer=trained * (OPTIMIZER if value == 2 else OPTIMIZER_FP32) / shards,
        activations=sum(parts.values()),
        parts=parts,
        copies=FP8_COPIES * (stage.layers - bf16_layers(run, stage)) * matrices if uses_fp8(run) else 0.0,
    )


def _activations(run: RunConfig, shape: ModelShape, stage: Stage) -> dict[str, float]:
    p, how, rows = run.parallel, keeping_of(run), run.stage.micro_batch_size
    tokens = rows * run.stage.seq_length / p.context
    pieces = stage.in_flight / stage.chunks  # micro-batches that are held whole
    plain = bf16_layers(run, stage)
    parts = {
        "decoder": tokens
        * pieces
        * (
            stack_bytes(shape.decoder, stage.layers - plain, how)
            + stack_bytes(shape.decoder, plain, replace(how, linear_input=how.linear_input and how.value))
        )
    }
    if stage.first and shape.tower is not None:
        parts |= _tower(run, shape, stage.encoded)
    # The loss is done with when the first block is built again: of the two the larger one counts.
    again = tokens * recomputed_bytes(shape.decoder, stage.layers // stage.chunks, how)
    output = tokens * output_bytes(shape, how) if stage.last else 0.0
    return parts | {"recomputed" if again > output else "output": max(again, output)}


def _tower(run: RunConfig, shape: ModelShape, batches: int) -> dict[str, float]:
    """Of the tower and the connector: a TP rank's share of the tiles."""
    p, value, stage = run.parallel, value_bytes(run), run.stage
    tiles = worst_of(run, shape.geometry).tiles
    share = -(-tiles // p.tensor) if run.model.tower_data_parallel else tiles
    patches = share * shape.patches
    how = Keeping(1, False, value, value, "full" if p.tower_recompute else "none", 1)
    parts = {}
    if "tower" in stage.trainable:
        parts["tower"] = patches * (
            batches * stack_bytes(shape.tower, shape.tower.layers, how)
            + recomputed_bytes(shape.tower, shape.tower.layers, how)
        )
    parts["connector"] = batches * patches * connector_bytes(shape, value)
    return parts
