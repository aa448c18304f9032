"""Real runs of Megatron Bridge's loop for tests: schema -> container -> finetune, on Gloo."""

import json
from pathlib import Path

RATES = {"tower": 3e-4, "connector": 1e-3, "decoder": 3e-4}


def run_config(checkpoint, run_dir, *, layout=None, steps=10, batch=4, packing=True, trainable=None, **model):
    """A small fp32 SFT run on tests/helpers/fixed_batches.py at a layout (of tests/helpers/tiny_megatron.py)."""
    from fixed_batches import SEQ_LENGTH
    from tiny_megatron import Layout

    from nemo_amalia.config import schema

    layout = layout or Layout()
    trainable = list(trainable or RATES)
    return schema.RunConfig(
        run_dir=str(run_dir),
        stage=schema.StageConfig(
            name="test",
            trainable=trainable,
            learning_rates=schema.LearningRates(**{name: RATES[name] for name in trainable}),
            schedule="cosine",
            warmup_fraction=0.2,
            train_steps=steps,
            global_batch_size=batch,
            seq_length=SEQ_LENGTH,
            packing=packing,
        ),
        model=schema.ModelConfig(checkpoint=str(checkpoint), **model),
        data=schema.DataConfig(path=str(checkpoint), num_workers=0),
        parallel=schema.ParallelConfig(
            tensor=layout.tp,
            pipeline=layout.pp,
            virtual_pipeline=layout.vpp,
            context=layout.cp,
            sequence=layout.sp,
            first_stage_layers=layout.first,
            distributed_optimizer=True,
            overlap_grad_reduce=layout.overlap,
            overlap_param_gather=layout.overlap,
            recompute=layout.recompute,
            tower_recompute=layout.recompute == "full",
        ),
        precision=schema.PrecisionConfig(recipe="fp32", fused_cross_entropy=False),
        checkpoint=schema.CheckpointConfig(save_interval=1000),
    )


def dpo_config(checkpoint, run_dir, *, reference="in_memory", preference=None, **options):
    """run_config as stage dpo; preference: fields of PreferenceConfig."""
    from fixed_pairs import SEQ_LENGTH

    from nemo_amalia.config import schema

    run = run_config(checkpoint, run_dir, **options)
    run.stage.seq_length = SEQ_LENGTH
    run.stage.name, run.stage.reference = "dpo", reference
    run.stage.preference = schema.PreferenceConfig(**(preference or {}))
    return run


def train_fixed(run, *, save=False, packs=8, callbacks=(), dataset=None, conversations=False, **stream):
    """Train on the fixed stream; the reporter's metrics by step (an empty list on other ranks).

    dataset: another stream than fixed_batches' (for stage dpo: fixed_pairs', unless ``conversations``), which takes
    ``stream`` as its fields.
    """
    import os

    import torch
    import torch.distributed as dist
    from fixed_batches import FixedBatches
    from fixed_pairs import FixedPairs
    from megatron.bridge.training.finetune import finetune

    from nemo_amalia.training.job.console import Console
    from nemo_amalia.training.run import prepare_run

    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if not dist.is_initialized():
        dist.init_process_group(backend)
    rank = int(os.environ["RANK"])
    Path(run.run_dir).mkdir(parents=True, exist_ok=True)
    container, step, ours = prepare_run(run, Console(run.run_dir, rank), backend)
    fixed = FixedPairs if run.stage.name == "dpo" and not conversations else FixedBatches
    container.dataset = dataset or fixed(
        packs=packs,
        packing=run.stage.packing,
        vocabulary=260,  # special tokens are below 4 in tests.tiny_hf
        image_token_id=container.model.image_token_id,
        geometry=container.model.image_geometry(),
        **stream,
    )
    if not save:
        container.checkpoint.save = container.checkpoint.load = None
    finetune(container, step, callbacks=[*ours, *callbacks])
    dist.barrier()
    metrics = Path(run.run_dir) / "metrics.jsonl"
    return [json.loads(line) for line in metrics.read_text().splitlines()]
