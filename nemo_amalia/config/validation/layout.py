"""Layouts that cannot run, by the run's own numbers, each in its range; called by validate. Reads no files.

What needs the checkpoint (heads, widths and layers over the layout) is in config/validation/model.py; whether there is
enough memory is `amalia plan`'s to say (the ``checks`` of training/launch/train.py).
"""

from __future__ import annotations

from nemo_amalia.config.derived import model_ranks, row_multiple
from nemo_amalia.config.precision import fp8_scaling
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.utils.errors import ConfigError


def validate_layout(run: RunConfig, world_size: int) -> None:
    """Raise ConfigError with what was seen, what was expected and what to do."""
    _world(run, world_size)
    _nodes(run, world_size)
    microbatches = _batch(run, world_size)
    _tokens(run)
    _pipeline(run, microbatches)
    _overlap(run)
    _tiles(run)


def _world(run: RunConfig, world_size: int) -> None:
    p, ranks = run.parallel, model_ranks(run)
    if p.world_size is not None and p.world_size != world_size:
        raise ConfigError(
            f"the layout is for parallel.world_size {p.world_size} and {world_size} ranks run: choose another "
            f"parallel=, start {p.world_size} ranks, or set parallel.world_size={world_size}"
        )
    if world_size % ranks:
        raise ConfigError(
            f"parallel.tensor x pipeline x context = {p.tensor} x {p.pipeline} x {p.context} = {ranks} does not divide "
            f"the world of {world_size} ranks: change one of them or the ranks"
        )


def _nodes(run: RunConfig, world_size: int) -> None:
    """TP waits on the network several times a layer: its ranks must share a node."""
    tensor, node = run.parallel.tensor, run.cluster.gpus_per_node
    if not node:
        return
    if node % tensor:
        raise ConfigError(
            f"parallel.tensor is {tensor} and a node of {run.cluster.name} has {node} GPUs: TP must stay inside a "
            f"node; choose a divisor of {node}"
        )
    if world_size > node and world_size % node:
        raise ConfigError(
            f"{world_size} ranks do not fill nodes of {node} GPUs ({run.cluster.name}): choose a multiple of {node}"
        )


def _batch(run: RunConfig, world_size: int) -> int:
    """Micro-batches of a step on every rank."""
    stage, data_parallel = run.stage, world_size // model_ranks(run)
    per_step = stage.micro_batch_size * data_parallel
    if stage.global_batch_size % per_step:
        raise ConfigError(
            f"stage.global_batch_size {stage.global_batch_size} is not a multiple of micro_batch_size x data-parallel "
            f"ranks = {stage.micro_batch_size} x {data_parallel} = {per_step}: choose a multiple of {per_step}"
        )
    return stage.global_batch_size // per_step


def _tokens(run: RunConfig) -> None:
    p, stage, scaling = run.parallel, run.stage, fp8_scaling(run.precision)
    if p.sequence and p.tensor == 1:
        raise ConfigError("parallel.sequence=true needs parallel.tensor > 1: it splits tokens over the TP ranks")
    cut = row_multiple(run)
    if stage.seq_length % cut:
        why = "2 x context, times tensor under sequence parallelism"
        why += f", in whole blocks of FP8 {scaling}" if scaling else ""
        above = -(-stage.seq_length // cut) * cut
        raise ConfigError(
            f"stage.seq_length {stage.seq_length} does not cut into {cut} parts ({why}): choose a multiple of {cut}, "
            f"as {above}"
        )


def _pipeline(run: RunConfig, microbatches: int) -> None:
    p = run.parallel
    if p.virtual_pipeline and p.pipeline == 1:
        raise ConfigError(f"parallel.virtual_pipeline is {p.virtual_pipeline}: it needs parallel.pipeline > 1")
    if p.virtual_pipeline and microbatches % p.pipeline:
        raise ConfigError(
            f"a step has {microbatches} micro-batches a rank and parallel.virtual_pipeline needs a multiple of "
            f"parallel.pipeline {p.pipeline}: raise stage.global_batch_size, or set parallel.virtual_pipeline=null"
        )
    for name in ("first_stage_layers", "last_stage_layers"):
        layers = getattr(p, name)
        if layers is None:
            continue
        if p.pipeline == 1:
            raise ConfigError(f"parallel.{name} is {layers} and parallel.pipeline is 1: set it to null")
        if layers % (p.virtual_pipeline or 1):
            raise ConfigError(
                f"parallel.{name} is {layers}: expected a multiple of parallel.virtual_pipeline {p.virtual_pipeline}"
            )


def _overlap(run: RunConfig) -> None:
    p = run.parallel
    if p.overlap_tensor and not p.sequence:
        raise ConfigError(
            "parallel.overlap_tensor=true needs parallel.sequence=true: what it hides is sequence parallelism's "
            "gather and scatter; set it, or parallel.overlap_tensor=false"
        )
    if p.overlap_tensor and fp8_scaling(run.precision) == "blockwise":
        raise ConfigError(
            "parallel.overlap_tensor=true with FP8 blockwise: Transformer Engine's userbuffers cannot gather its "
            "blocks; set parallel.overlap_tensor=false, or take precision=fp8_current"
        )
    if p.overlap_param_gather and not (p.distributed_optimizer and p.overlap_grad_reduce):
        raise ConfigError(
            "parallel.overlap_param_gather=true needs parallel.distributed_optimizer=true and "
            "parallel.overlap_grad_reduce=true: set both, or leave it out"
        )


def _tiles(run: RunConfig) -> None:
    """Thumbnails alone, in rows: a micro-batch has as many tiles as rows, and a rank without one encodes nothing."""
    stage, tensor = run.stage, run.parallel.tensor
    alone = not stage.tiling and not stage.packing and run.model.tower_data_parallel
    if alone and stage.micro_batch_size < tensor:
        raise ConfigError(
            f"a micro-batch has {stage.micro_batch_size} thumbnails and parallel.tensor is {tensor}, so "
            f"{tensor - stage.micro_batch_size} of its ranks would encode none: set stage.micro_batch_size={tensor}, "
            "lower parallel.tensor, or set model.tower_data_parallel=false"
        )
