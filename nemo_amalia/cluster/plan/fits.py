"""Whether a layout fits the card, before its ranks start: formulas alone, no Megatron."""

from __future__ import annotations

from nemo_amalia.cluster.plan.architecture import hf_config
from nemo_amalia.cluster.plan.memory import StageMemory, memory_of
from nemo_amalia.cluster.plan.plan import GIB, card_gib
from nemo_amalia.cluster.plan.shape import ModelShape, shape_of
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.utils.errors import ConfigError

REMEDIES = (
    ("parallel.tower_recompute=true", lambda run, stage: "tower" in stage.parts and not run.parallel.tower_recompute),
    ("a larger parallel.tensor", lambda run, stage: run.parallel.tensor < (run.cluster.gpus_per_node or 1)),
    ("parallel.recompute=full", lambda run, stage: run.parallel.recompute != "full"),
    ("a larger parallel.context", lambda run, stage: True),
)


def check_memory(run: RunConfig, world_size: int, shape: ModelShape | None = None) -> None:
    """Raise ConfigError where the fullest rank needs more than cluster.gpu_memory_gb, with what would help.

    The model is read from the config of model.checkpoint (transformers, no Megatron). Returns at once where the
    cluster names no card.
    """
    card = run.cluster.gpu_memory_gb
    if not card:
        return
    stages = memory_of(run, shape or shape_of(hf_config(run)), world_size)
    fullest = max(stages, key=lambda stage: stage.total)
    needs = card_gib(fullest.total)
    if needs <= card:
        return
    raise ConfigError(
        f"pipeline stage {fullest.stage.index} needs {needs:.1f} GiB a GPU ({_made_of(fullest)}) and {run.cluster.gpu} "
        f"has {card:g}: take {' or '.join(name for name, helps in REMEDIES if helps(run, fullest))}; "
        "`amalia plan --search` lists layouts that fit"
    )


def _made_of(memory: StageMemory) -> str:
    held = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
    }
    return ", ".join(f"{name} {size / GIB:.1f}" for name, size in held.items())
