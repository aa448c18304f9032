"""`amalia plan`: memory, time and cost of a run on a cluster, before anybody queues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nemo_amalia.cluster.plan import rates
from nemo_amalia.cluster.plan.flops import Rows
from nemo_amalia.cluster.plan.memory import StageMemory, memory_of, split_parameters
from nemo_amalia.cluster.plan.microbatch import ordinary_rows
from nemo_amalia.cluster.plan.request import check_plannable
from nemo_amalia.cluster.plan.shape import ModelShape
from nemo_amalia.cluster.plan.step_time import Prediction, predict
from nemo_amalia.config.schema import PREFERENCE_STAGE, RunConfig

GIB = 1 << 30
# What a process holds beside torch's tensors. Ours, unmeasured here: CUDA's context and cuBLAS 1 GiB, NCCL's buffers
# 1.5 GiB; and what the caching allocator loses to gaps.
RESERVED_GIB, ALLOCATOR_LOSS = 2.5, 0.04


@dataclass(frozen=True)
class Plan:
    """reference: seconds of the reference's forward passes over the pairs, of stage dpo alone."""

    run: RunConfig
    world_size: int
    stages: list[StageMemory]
    rows: Rows
    step: Prediction
    reference: float

    @property
    def hours(self) -> float:
        """Of the whole stage, restarts and the reference included."""
        steps = self.run.stage.train_steps or 0
        return (steps * self.step.seconds + self.reference) * (1 + rates.RESTARTS) / 3600

    @property
    def gpu_hours(self) -> float:
        """GPUs times hours."""
        return self.hours * self.world_size

    @property
    def energy_mwh(self) -> float:
        """Of GPUs at load and their nodes."""
        c = self.run.cluster
        nodes = -(-self.world_size // (c.gpus_per_node or 1))
        return self.hours * (self.world_size * c.gpu_watts + nodes * c.node_watts) / 1e6

    @property
    def needs_gib(self) -> float:
        """The card's memory that its fullest rank asks for."""
        return card_gib(max(stage.total for stage in self.stages))

    @property
    def fits(self) -> bool:
        """Whether that is there; True where the cluster names no card."""
        card = self.run.cluster.gpu_memory_gb
        return not card or self.needs_gib <= card


def card_gib(tensors: float) -> float:
    """GiB of a card for ``tensors`` bytes of tensors."""
    return tensors * (1 + ALLOCATOR_LOSS) / GIB + RESERVED_GIB


def make_plan(
    run: RunConfig,
    shape: ModelShape,
    world_size: int,
    own: dict[str, int] | None = None,
    packs: Sequence[Sequence[int]] | None = None,
) -> Plan:
    """own: parameters of a tensor-parallel rank, counted (parameters.py); None: reckoned. packs: of an index.

    Raises ConfigError where cluster= names no GPU, or the stage no number of steps.
    """
    check_plannable(run)
    own = own or split_parameters(shape, run.parallel.tensor)
    stages = memory_of(run, shape, world_size, own)
    rows = ordinary_rows(run, shape, packs)
    step = predict(run, shape, world_size, stages, rows, own)
    reference = 0.0
    if run.stage.name == PREFERENCE_STAGE and run.stage.reference == "precomputed":
        forward = predict(run, shape, world_size, stages, rows, own, forward_only=True)
        reference = forward.seconds * (run.stage.train_steps or 0)
    elif run.stage.name == PREFERENCE_STAGE:
        forward = predict(run, shape, world_size, stages, rows, own, forward_only=True)
        step = _with_reference(step, forward)
        stages = [replace(stage, weights=2 * stage.weights) for stage in stages]
    return Plan(run, world_size, stages, rows, step, reference)


def _with_reference(step: Prediction, forward: Prediction) -> Prediction:
    """A second model's forward in every step."""
    seconds = step.seconds + forward.seconds
    parts = step.parts | {"reference": forward.seconds}
    return replace(step, seconds=seconds, parts=parts, mfu=step.mfu * step.seconds / seconds)
