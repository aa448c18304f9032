"""The schedule of a run, and how it differs from that of a checkpoint without a configuration of ours beside it.

Imports no Megatron.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemo_amalia.config.key import shown
from nemo_amalia.config.schema import MODULES, RunConfig, StageConfig
from nemo_amalia.utils.files import read_yaml

SCHEDULER = {  # the run's key: the name in Bridge's SchedulerConfig
    "stage.train_steps": "lr_decay_iters",
    "stage.schedule": "lr_decay_style",
    "optim.weight_decay": "start_weight_decay",
}


def warmup_steps(stage: StageConfig) -> int:
    """Steps of warm-up: always fewer than the stage has."""
    return min(round(stage.warmup_fraction * stage.train_steps), stage.train_steps - 1)


def schedule_differences(run: RunConfig, step: int) -> list[str]:
    """What Megatron Bridge saved of the schedule at this step, where it is another than the run's, with both values.

    For runs that began before preflight/resume.py kept their configuration; empty for a torn checkpoint, which is
    named by what reads it.
    """
    file = Path(run.run_dir) / "checkpoints" / f"iter_{step:07d}" / "run_config.yaml"
    if not file.is_file():
        return []
    saved, here = _saved(read_yaml(file)), _of(run)
    pairs = ((key, saved[key], here[key]) for key in here if key in saved)
    return [f"{key}={shown(was)} (now {shown(now)})" for key, was, now in pairs if was != now]


def _of(run: RunConfig) -> dict[str, Any]:
    stage = run.stage
    rates = {f"stage.learning_rates.{name}": getattr(stage.learning_rates, name) for name in stage.trainable}
    return rates | {
        "stage.trainable": [name for name in MODULES if name in stage.trainable],
        "stage.min_lr_ratio": stage.min_lr_ratio,
        "stage.train_steps": stage.train_steps,
        "stage.global_batch_size": stage.global_batch_size,
        "stage.schedule": stage.schedule,
        "optim.weight_decay": run.optim.weight_decay,
        "steps of warm-up": warmup_steps(stage),
    }


def _saved(config: dict[str, Any]) -> dict[str, Any]:
    scheduler, modules = config["scheduler"], config["optimizer_config_override_provider"]
    found = {key: scheduler[name] for key, name in SCHEDULER.items()}
    found |= {f"stage.learning_rates.{name}": rate for name, rate in modules["lrs"].items()}
    ratios = [modules["min_lrs"][name] / rate for name, rate in modules["lrs"].items() if rate]
    return found | {
        "stage.trainable": [name for name in MODULES if name in modules["lrs"]],
        "stage.global_batch_size": config["train"]["global_batch_size"],
        "steps of warm-up": scheduler["lr_warmup_iters"],
        "stage.min_lr_ratio": float(f"{ratios[0]:.12g}") if ratios else 0.0,
    }
