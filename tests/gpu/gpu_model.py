"""The model and the runs of tests/gpu: small, with the widths that Transformer Engine and FP8 take.

Heads of 64; every width, on a rank of TP 2 too, a multiple of 128, which FP8 in blocks asks for; rows of 512 tokens.
"""

from pathlib import Path

import tiny_hf

SEQ_LENGTH = 512
# Standard deviation of the weights at this width: the 0.2 that tests/helpers/tiny_hf.py uses for a width of 64
# would make attention all but one-hot, and one-hot attention turns bf16's rounding into other tokens.
SPREAD = 0.06


def write_hf(folder: Path) -> Path:
    """A LLaVA-NeXT of 4 decoder layers and 2 of the tower, in bf16."""
    import torch

    text = tiny_hf.text_config(hidden_size=256, intermediate_size=512, num_attention_heads=4, head_dim=64)
    vision = tiny_hf.vision_config(hidden_size=128, intermediate_size=256, num_attention_heads=2)
    config = tiny_hf.llava_config(text=text, vision=vision)
    return tiny_hf.llava_next(folder, dtype=torch.bfloat16, config=config, spread=SPREAD)


def run_of(checkpoint: str, folder: str, *, layout: dict | None = None, precision: str = "bf16", steps: int = 10):
    """A RunConfig; precision: of conf/precision. The loss is not fused: that rounds its gradient, here and nowhere
    else, and deterministic mode refuses it."""
    from omegaconf import OmegaConf
    from tiny_megatron import Layout
    from training_runs import run_config

    from nemo_amalia.config.compose import CONF
    from nemo_amalia.config.schema import PrecisionConfig

    run = run_config(checkpoint, folder, layout=Layout(**(layout or {})), steps=steps)
    values = OmegaConf.to_container(OmegaConf.load(CONF / "precision" / f"{precision}.yaml"))
    run.precision = PrecisionConfig(**{**values, "fused_cross_entropy": False})
    run.stage.seq_length = SEQ_LENGTH
    return run


def train(checkpoint: str, folder: str, cases: dict) -> dict:
    """In each rank: runs of the real loop, one after the other. Losses and gradient norms by case, and the layers."""
    from gpu_batches import batches
    from training_runs import train_fixed

    from nemo_amalia.config.validation.layout import validate_layout
    from nemo_amalia.config.validation.precision import validate_precision

    found = {}
    for name, options in cases.items():
        run = run_of(checkpoint, f"{folder}/{name.replace(' ', '_')}", **options)
        validate_precision(run)  # not validate: the stream is fixed, so data.path has no shards
        validate_layout(run, _world())
        metrics = train_fixed(run, dataset=batches())
        found[name] = [(step["loss"], step["grad_norm"]) for step in metrics]
    return {"runs": found, "layers": _layers()}


def _world() -> int:
    import torch.distributed as dist

    return dist.get_world_size()


def _layers() -> str:
    """Whose layers this rank builds."""
    from nemo_amalia.model.layer_specs import backend

    return type(backend()).__name__
