"""RunConfig -> Megatron Bridge's ConfigContainer, one function a part; values that differ by run are in conf/."""

from __future__ import annotations

import os
from pathlib import Path

from megatron.bridge.training.comm_overlap import CommOverlapConfig
from megatron.bridge.training.config import (
    CheckpointConfig,
    ConfigContainer,
    DistributedDataParallelConfig,
    DistributedInitConfig,
    LoggerConfig,
    OptimizerConfig,
    RerunStateMachineConfig,
    RNGConfig,
    SchedulerConfig,
    TokenizerConfig,
    TrainingConfig,
    ValidationConfig,
)
from megatron.core.dist_checkpointing.strategies.torch import get_async_strategy
from megatron.core.extensions.transformer_engine import HAVE_TE

from nemo_amalia.config.schema import RunConfig
from nemo_amalia.data.provider import AmaliaDatasetProvider
from nemo_amalia.data.settings import StreamSettings
from nemo_amalia.model.freeze import ModuleLearningRates
from nemo_amalia.model.provider import AmaliaVLModelProvider
from nemo_amalia.training.preflight.position import data_state, starts_anew
from nemo_amalia.training.preflight.saved_schedule import warmup_steps
from nemo_amalia.training.setup.precision import mixed_precision, set_precision
from nemo_amalia.utils.devices import has_gpu


def build_container(run: RunConfig, model: AmaliaVLModelProvider, assets: Path, backend: str) -> ConfigContainer:
    """Everything Bridge needs for one run. ``model`` is the provider read from the checkpoint; it is changed.

    assets: folder with tokenizer and processor. backend: ``nccl`` or ``gloo``.
    """
    set_model(run, model)
    return ConfigContainer(
        model=model,
        dataset=dataset(run, model, assets),
        train=training(run),
        validation=ValidationConfig(eval_iters=0, eval_interval=None),
        optimizer=optimizer(run),
        optimizer_config_override_provider=learning_rates(run),
        scheduler=scheduler(run),
        ddp=data_parallel(run),
        logger=logger(run),
        # Bridge wants a vocabulary size only; the data path has the real tokenizer.
        tokenizer=TokenizerConfig(tokenizer_type="NullTokenizer", vocab_size=model.vocab_size - 1),
        checkpoint=checkpoint(run),
        rng=RNGConfig(seed=run.seed),
        dist=DistributedInitConfig(distributed_backend=backend),
        # Ours names the step and the samples (training/steps/sft.py); the state machine would check after it.
        rerun_state_machine=RerunStateMachineConfig(check_for_nan_in_loss=False),
        mixed_precision=mixed_precision(run),
        comm_overlap=comm_overlap(run),
    )


def set_model(run: RunConfig, model: AmaliaVLModelProvider) -> None:
    """Lay out the model for this run: parallel sizes, precision, recompute, what it trains."""
    p, stage = run.parallel, run.stage
    model.tensor_model_parallel_size = p.tensor
    model.pipeline_model_parallel_size = p.pipeline
    model.context_parallel_size = p.context
    model.sequence_parallel = p.sequence
    model.virtual_pipeline_model_parallel_size = p.virtual_pipeline
    # Megatron's batched sends cannot tell the two directions between a pair of ranks apart: with two interleaved stages
    # activations and gradients would change places without a word.
    model.overlap_p2p_comm = p.virtual_pipeline is not None
    model.batch_p2p_comm = p.virtual_pipeline is None
    # Megatron derives these two from the sizes, once: a checkpoint brings those of the run that wrote it.
    model.microbatch_group_size_per_vp_stage = p.pipeline
    model.expert_tensor_parallel_size = p.tensor
    model.num_layers_in_first_pipeline_stage = p.first_stage_layers
    model.num_layers_in_last_pipeline_stage = p.last_stage_layers
    model.pipeline_model_parallel_layout = None
    model.tp_comm_overlap = False  # Bridge turns it on where it can (comm_overlap below)
    model.seq_length = stage.seq_length
    model.tiling, model.trainable = stage.tiling, list(stage.trainable)
    model.tower_data_parallel = run.model.tower_data_parallel
    model.tower_recompute = run.parallel.tower_recompute
    model.calculate_per_token_loss = True  # see data_parallel
    set_recompute(run, model)
    set_precision(run, model)
    set_kernels(run, model)


def set_recompute(run: RunConfig, model: AmaliaVLModelProvider) -> None:
    """None, Megatron's selective recompute of attention, or whole layers."""
    kind = run.parallel.recompute
    model.recompute_granularity = None if kind == "none" else kind
    model.recompute_method = "uniform" if kind == "full" else None
    model.recompute_num_layers = run.parallel.recompute_layers if kind == "full" else None


def set_kernels(run: RunConfig, model: AmaliaVLModelProvider) -> None:
    """Fused kernels where Transformer Engine is; a checkpoint may come from a machine that has none, or to one."""
    for fusion in ("bias_activation_fusion", "bias_dropout_fusion", "masked_softmax_fusion", "persist_layer_norm"):
        setattr(model, fusion, HAVE_TE)
    model.apply_rope_fusion = HAVE_TE
    model.gradient_accumulation_fusion = HAVE_TE
    model.cross_entropy_loss_fusion = run.precision.fused_cross_entropy
    model.use_cpu_initialization = not has_gpu()
    model.perform_initialization = False  # the weights come from a checkpoint, always


def dataset(run: RunConfig, model: AmaliaVLModelProvider, assets: Path) -> AmaliaDatasetProvider:
    """The stream, cut for the model's own image geometry."""
    geometry = model.image_geometry()
    settings = StreamSettings.of(run, decode_device="mixed" if has_gpu() else "cpu")
    return AmaliaDatasetProvider(
        stream=settings.to_plain(),
        assets=str(assets),
        tile=geometry.tile,
        patch=geometry.patch,
        pinpoints=[list(canvas) for canvas in geometry.pinpoints],
        num_workers=run.data.num_workers,
        # Beside checkpoints/, not inside: Bridge's keep-last counts every iter_* folder below it, the data's too, and
        # would delete the checkpoint itself (checkpointing.cleanup_old_non_persistent_checkpoint, an rglob).
        dataloader_save=data_state(run),
        dataloader_load="" if starts_anew(run) else data_state(run),
    )


def training(run: RunConfig) -> TrainingConfig:
    """Steps and batch; SIGTERM (Slurm's warning before the limit) saves a checkpoint and ends the run."""
    stage = run.stage
    return TrainingConfig(
        train_iters=min(stage.train_steps, run.stop_after or stage.train_steps),
        global_batch_size=stage.global_batch_size,
        micro_batch_size=stage.micro_batch_size,
        exit_signal_handler=True,
        manual_gc=True,
        manual_gc_interval=100,
    )


def optimizer(run: RunConfig) -> OptimizerConfig:
    """AdamW; ``lr`` is the largest module rate, each module has its own in learning_rates."""
    o, stage = run.optim, run.stage
    peak = max(getattr(stage.learning_rates, name) for name in stage.trainable)
    return OptimizerConfig(
        optimizer="adam",
        lr=peak,
        min_lr=peak * stage.min_lr_ratio,
        weight_decay=o.weight_decay,
        adam_beta1=o.adam_beta1,
        adam_beta2=o.adam_beta2,
        adam_eps=o.adam_eps,
        clip_grad=o.clip_grad,
        bf16=run.precision.recipe != "fp32",
        use_distributed_optimizer=run.parallel.distributed_optimizer,
        overlap_param_gather=run.parallel.overlap_param_gather,
    )


def learning_rates(run: RunConfig) -> ModuleLearningRates:
    """One rate each for tower, connector and decoder, through Megatron's parameter-group overrides."""
    lrs = {name: getattr(run.stage.learning_rates, name) for name in run.stage.trainable}
    return ModuleLearningRates(lrs=lrs, min_lrs={name: lr * run.stage.min_lr_ratio for name, lr in lrs.items()})


def scheduler(run: RunConfig) -> SchedulerConfig:
    """Warm-up, then constant or cosine over train_steps, also when stop_after ends the run earlier."""
    stage = run.stage
    return SchedulerConfig(
        lr_decay_style=stage.schedule,
        lr_warmup_iters=warmup_steps(stage),
        lr_decay_iters=stage.train_steps,
        max_steps=stage.train_steps,
        start_weight_decay=run.optim.weight_decay,
        end_weight_decay=run.optim.weight_decay,
    )


def data_parallel(run: RunConfig) -> DistributedDataParallelConfig:
    """Gradients are summed in fp32; the division by tokens comes once, at the end (docs/architecture.md, Data)."""
    p = run.parallel
    return DistributedDataParallelConfig(
        use_distributed_optimizer=p.distributed_optimizer,
        overlap_grad_reduce=p.overlap_grad_reduce,
        overlap_param_gather=p.overlap_param_gather,
        average_in_collective=False,
        grad_reduce_in_fp32=True,
        check_for_nan_in_grad=True,
    )


def logger(run: RunConfig) -> LoggerConfig:
    """TensorBoard always; W&B and MLflow where conf/logging names a project."""
    log, name = run.logging, Path(run.run_dir).name
    in_run_dir = f"sqlite:///{Path(run.run_dir).absolute()}/mlflow.db" if log.mlflow_experiment else None
    return LoggerConfig(
        log_interval=log.interval,
        tensorboard_dir=str(Path(run.run_dir) / "tensorboard"),
        wandb_project=log.wandb_project,
        wandb_entity=log.wandb_entity,
        wandb_exp_name=name if log.wandb_project else None,
        wandb_save_dir=str(Path(run.run_dir).absolute()) if log.wandb_project else None,
        mlflow_experiment=log.mlflow_experiment,
        mlflow_run_name=name if log.mlflow_experiment else None,
        mlflow_tracking_uri=log.mlflow_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or in_run_dir,
        mlflow_log_artifacts=False,  # it would upload every checkpoint
    )


def checkpoint(run: RunConfig) -> CheckpointConfig:
    """Save to and resume from run_dir/checkpoints; start from model.checkpoint where there is nothing to resume."""
    folder = str(Path(run.run_dir).absolute() / "checkpoints")
    c = run.checkpoint
    return CheckpointConfig(
        save=folder,
        load=folder,
        pretrained_checkpoint=str(Path(run.model.checkpoint).absolute()),
        save_interval=c.save_interval,
        most_recent_k=c.keep_last,
        async_save=c.asynchronous,
        async_strategy=async_strategy(),
        ckpt_format="torch_dist",
        fully_parallel_save=True,
        dist_ckpt_optim_fully_reshardable=True,  # a run may resume at another TP and PP
        save_tokenizer_assets=False,  # checkpoints/hf holds tokenizer and processor
    )


def async_strategy() -> str:
    """NVIDIA's resiliency extension writes beside training where it is installed, else Megatron-Core itself does."""
    try:
        return get_async_strategy("nvrx")[0]
    except ModuleNotFoundError:
        return "mcore"


def comm_overlap(run: RunConfig) -> CommOverlapConfig | None:
    """None where nothing overlaps.

    Bridge adds what follows: gradient buckets of 128 Mi elements, and parameter gathers that all chunks of a virtual
    pipeline start together. It has no tuned table for a width of 4,096, so Transformer Engine's defaults choose how
    each linear overlaps. Without Transformer Engine, whose linears they are, tensor overlap stays off: Bridge would ask
    the same, of the stand-in that it imports on a CPU.
    """
    p = run.parallel
    if not (p.overlap_grad_reduce or p.overlap_param_gather or p.overlap_tensor):
        return None
    return CommOverlapConfig(
        tp_comm_overlap=p.overlap_tensor and HAVE_TE,
        overlap_grad_reduce=p.overlap_grad_reduce,
        overlap_param_gather=p.overlap_param_gather,
    )
