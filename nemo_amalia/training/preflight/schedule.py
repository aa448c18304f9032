"""Whether a run that resumes has the schedule of its checkpoint; refused before a rank starts. Imports no Megatron.

Megatron's scheduler asserts its own part in every rank, after the weights are loaded; a module's rate it takes from the
checkpoint without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemo_amalia.config.schema import RunConfig, StageConfig
from nemo_amalia.training.preflight.position import resumed_step
from nemo_amalia.utils.errors import ConfigError
from nemo_amalia.utils.files import read_yaml

SCHEDULER = {  # the run's key: the name in Bridge's SchedulerConfig
    "stage.train_steps": "lr_decay_iters",
    "stage.schedule": "lr_decay_style",
    "optim.weight_decay": "start_weight_decay",
}


def warmup_steps(stage: StageConfig) -> int:
    """Steps of warm-up: always fewer than the stage has."""
    return min(round(stage.warmup_fraction * stage.train_steps), stage.train_steps - 1)


def check_schedule(run: RunConfig) -> None:
    """Raise ConfigError where the checkpoint was trained by another schedule than this run's, naming both."""
    step = resumed_step(run)
    file = Path(run.run_dir) / "checkpoints" / f"iter_{step:07d}" / "run_config.yaml"
    if not step or not file.is_file():  # a torn checkpoint is named by what reads it
        return
    saved, here = _saved(read_yaml(file)), _of(run)
    others = [f"{key}={saved[key]} (now {here[key]})" for key in here if key in saved and saved[key] != here[key]]
    if others:
        raise ConfigError(
            f"{run.run_dir} goes on after step {step} of a run with {', '.join(others)}: give those, or "
            f"begin another run from its weights, with model.checkpoint={run.run_dir}/checkpoints and another run_dir"
        )


def _of(run: RunConfig) -> dict[str, Any]:
    stage = run.stage
    rates = {f"stage.learning_rates.{name}": getattr(stage.learning_rates, name) for name in stage.trainable}
    return rates | {
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
        "stage.global_batch_size": config["train"]["global_batch_size"],
        "steps of warm-up": scheduler["lr_warmup_iters"],
        "stage.min_lr_ratio": float(f"{ratios[0]:.12g}") if ratios else 0.0,
    }
