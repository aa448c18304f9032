"""Which pipeline stage holds which layers, and for how many micro-batches at once. Megatron's own rules, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from nemo_amalia.cluster.plan.shape import ModelShape
from nemo_amalia.config.derived import model_ranks
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.config.validation.model import stage_layers


@dataclass(frozen=True)
class Stage:
    """A pipeline stage. chunks: its layers come in so many pieces (virtual stages). in_flight: pieces whose
    activations it holds at its busiest. encoded: micro-batches whose first piece, the tower's, it holds."""

    index: int
    layers: int
    chunks: int
    in_flight: int
    encoded: int
    first: bool
    last: bool


def micro_batches(run: RunConfig, world_size: int) -> int:
    """Of a data-parallel rank in a step."""
    replicas = world_size // model_ranks(run)
    return run.stage.global_batch_size // (run.stage.micro_batch_size * replicas)


def stages_of(run: RunConfig, shape: ModelShape, world_size: int) -> list[Stage]:
    """The stages in order. Raises ConfigError where the layers do not divide."""
    p, chunks = run.parallel, run.parallel.virtual_pipeline or 1
    batches = micro_batches(run, world_size)
    return [
        Stage(i, layers, chunks, *_in_flight(i, p.pipeline, chunks, batches), i == 0, i == p.pipeline - 1)
        for i, layers in enumerate(stage_layers(run, shape.decoder.layers))
    ]


def _in_flight(index: int, stages: int, chunks: int, batches: int) -> tuple[int, int]:
    """(pieces, micro-batches of the first piece) of 1F1B and interleaved 1F1B (pipeline_parallel/schedules.py).

    Pieces run in groups of as many micro-batches as there are stages; the first piece is the last to go backward, when
    all others of its group have.
    """
    warm_up = stages - index - 1 if chunks == 1 else (stages - index - 1) * 2 + (chunks - 1) * stages
    forwards = warm_up + (chunks - 1) * stages + 1
    groups, rest = divmod(forwards, stages * chunks)
    return min(warm_up + 1, batches * chunks), min(groups * stages + min(stages, rest), batches)


def bubble(run: RunConfig, world_size: int) -> float:
    """Idle share of the pipeline against the time of its work: (p - 1) / (m v)."""
    p = run.parallel
    return (p.pipeline - 1) / (micro_batches(run, world_size) * (p.virtual_pipeline or 1))
