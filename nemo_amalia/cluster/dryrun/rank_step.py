"""One training step of one rank in a fake world: the stage's own model, schedule, loss and optimizer."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from megatron.bridge.training.config import ConfigContainer, runtime_config_update
from megatron.bridge.training.optim import setup_optimizer
from megatron.bridge.training.setup import _update_model_config_funcs
from megatron.core.num_microbatches_calculator import (
    destroy_num_microbatches_calculator,
    init_num_microbatches_calculator,
)
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.process_groups_config import ProcessGroupCollection

from nemo_amalia.cluster.dryrun.fake_world import fake_tensors, fake_world
from nemo_amalia.cluster.dryrun.kernels import fused_kernels
from nemo_amalia.cluster.dryrun.live_bytes import LiveBytes
from nemo_amalia.cluster.plan.worst_pack import worst_batch
from nemo_amalia.config.derived import model_ranks
from nemo_amalia.config.schema import PREFERENCE_STAGE, RunConfig
from nemo_amalia.config.validation.model import check_model_layout
from nemo_amalia.data.samples import PackedBatch
from nemo_amalia.model.provider import AmaliaVLModelProvider
from nemo_amalia.training.setup.bridge_config import build_container
from nemo_amalia.training.steps.counts import StepCounts
from nemo_amalia.training.steps.dpo import DPOStep
from nemo_amalia.training.steps.sft import SFTStep


@dataclass(frozen=True)
class RankReport:
    """What a rank holds, in bytes, and what it ran. activations: at the peak of forward and backward, over all of the
    rest; step: the most that the optimizer's step holds over it. in_flight: micro-batches that ran."""

    rank: int
    coordinates: dict[str, int]
    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    step: int
    in_flight: int
    tiles: int
    seconds: float
    cpu_seconds: float

    @property
    def total(self) -> int:
        """The most that this rank's tensors hold at once."""
        return self.weights + self.gradients + self.optimizer + max(self.activations, self.step)


class NoReference:
    """Reference log-probabilities of zero: no file is read, and with reference=in_memory no second model is built."""

    def log_probs(self, batch: PackedBatch, answers, inputs: dict, groups) -> torch.Tensor:
        """[2P] zeros."""
        return torch.zeros(2 * batch.num_pairs)


def container_of(run: RunConfig, model: AmaliaVLModelProvider) -> ConfigContainer:
    """The container that `amalia train` would build, with Bridge's own checks passed and the precision applied."""
    check_model_layout(run, model, engine=True)
    container = build_container(run, model, assets="-", backend="gloo")
    model.bias_activation_fusion = model.gated_linear_unit  # Megatron's own function, which keeps what a GPU's keeps
    container.ddp.check_for_nan_in_grad = False  # there are no numbers
    container.checkpoint.save = container.checkpoint.load = container.checkpoint.pretrained_checkpoint = None
    runtime_config_update(container)  # as Bridge's own pretrain: precision, then its checks
    return container


def run_rank(run: RunConfig, model: AmaliaVLModelProvider, rank: int, size: int) -> RankReport:
    """One step of rank ``rank`` of ``size``: build, forward and backward of the worst packs by Megatron's schedule,
    optimizer. Whatever the modules raise comes through: that is what a dry run is for."""
    start, worked, live = time.time(), time.process_time(), LiveBytes()
    with fake_world(rank, size):
        container = container_of(run, model)
        model.initialize_model_parallel(seed=run.seed, create_gloo_process_groups=False)
        groups = ProcessGroupCollection.use_mpu_process_groups()
        in_flight = micro_batches(run, size)
        per_step = run.stage.micro_batch_size * (size // model_ranks(run))
        init_num_microbatches_calculator(rank, None, in_flight * per_step, run.stage.micro_batch_size,
                                         size // model_ranks(run))  # fmt: skip
        try:
            with fake_tensors(live.see) as mode, fused_kernels():
                report = _step(run, container, groups, live, mode, in_flight)
        finally:
            destroy_num_microbatches_calculator()
    return RankReport(
        rank=rank, in_flight=in_flight, seconds=time.time() - start, cpu_seconds=time.process_time() - worked, **report
    )


def micro_batches(run: RunConfig, size: int) -> int:
    """As many as fill the pipeline, of those that a rank has in a step: memory grows no more with further ones."""
    p, stage = run.parallel, run.stage
    own = stage.global_batch_size // (stage.micro_batch_size * (size // model_ranks(run)))
    wanted = p.pipeline * (2 if p.virtual_pipeline else 1)
    return max(1, min(own, wanted))


def _step(run: RunConfig, container: ConfigContainer, groups, live: LiveBytes, mode, in_flight: int) -> dict:
    model = container.model
    parts = model.provide_distributed_model(ddp_config=container.ddp, pg_collection=groups)
    parameters = [p for part in parts for p in part.parameters()]
    weights = sum(p.numel() * p.element_size() for p in parameters)
    gradients = live.now - weights
    optimizer, _ = setup_optimizer(
        container.optimizer,
        container.scheduler,
        parts,
        optimizer_config_override_provider=container.optimizer_config_override_provider,
    )
    _update_model_config_funcs(parts, model, container.ddp, optimizer, pg_collection=groups)
    batch = worst_batch(run, model.image_geometry(), model.image_token_id, model.vocab_size)
    held = live.restart_peak()
    _forward_backward(run, parts, batch, mode, in_flight)
    activations = live.peak - held
    before = live.restart_peak()
    optimizer.step()
    return {
        "coordinates": {name: getattr(groups, name).rank() for name in ("pp", "tp", "cp", "dp")},
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "weights": weights,
        "gradients": gradients,
        "optimizer": held - weights - gradients + live.now - before,
        "activations": activations,
        "step": live.peak - max(before, live.now),
        "tiles": len(batch.tiles),
    }


def _forward_backward(run: RunConfig, parts: list, batch: PackedBatch, mode, in_flight: int) -> None:
    batch = replace(batch, tiles=mode.from_tensor(batch.tiles))
    state = SimpleNamespace(train_state=SimpleNamespace(step=0))
    counts = StepCounts()
    step = SFTStep(counts)
    if run.stage.name == PREFERENCE_STAGE:
        step = DPOStep(counts, run.stage.preference, NoReference(), end_of_turn=0)
    stages = [iter([batch] * in_flight) for _ in parts]

    def forward_step(iterator, part):
        return step(state, iterator, part)

    get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=stages if len(parts) > 1 else stages[0],
        model=parts if len(parts) > 1 else parts[0],
        num_microbatches=in_flight,
        seq_length=run.stage.seq_length,
        micro_batch_size=run.stage.micro_batch_size,
        forward_only=False,
    )
