"""Whether a run that resumes is the run that began: its whole configuration, before a rank starts. No Megatron.

Megatron compares little of it. Adam's betas it takes from the checkpoint, whatever is asked for, and for one more
trainable module it ends with a KeyError.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_amalia.config.key import Key, keys_of, shown, value_of
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.training.preflight.position import resumed_step
from nemo_amalia.training.preflight.saved_schedule import schedule_differences
from nemo_amalia.utils.errors import ConfigError
from nemo_amalia.utils.files import quoted, read_json, write_json

SAVED = "run_config.json"  # in run_dir


def keep_config(run: RunConfig) -> None:
    """Write the configuration of a run that begins into its run_dir; that of one with a checkpoint stays as it is."""
    if resumed_step(run):
        return
    kept = dataclasses.asdict(run)
    for key in keys_of(RunConfig):
        *sections, name = key.name.split(".")
        place = kept
        for section in sections:
            place = place[section]
        place[name] = _absolute(key, place[name])
    write_json(Path(run.run_dir) / SAVED, kept, indent=2)


def check_resume(run: RunConfig) -> None:
    """Raise ConfigError that names every key which must stay the same in a resumed run and does not, with both values.

    A run that began before there was SAVED is compared with what Megatron Bridge saved (saved_schedule.py).
    """
    step = resumed_step(run)
    if not step:
        return
    saved = Path(run.run_dir) / SAVED
    others = list(_differences(run, read_json(saved)) if saved.is_file() else schedule_differences(run, step))
    if others:
        weights = quoted(Path(run.run_dir) / "checkpoints")
        raise ConfigError(
            f"{quoted(run.run_dir)} goes on after step {step} of a run with {', '.join(others)}: give those, or "
            f"begin another run from its weights, with model.checkpoint={weights} and another run_dir"
        )


def _differences(run: RunConfig, saved: dict[str, Any]) -> Iterator[str]:
    """`optim.clip_grad=1 (now 0.5)` for each key. One that the file does not have is newer than the run."""
    for key in keys_of(RunConfig):
        if key.on_resume != "same":
            continue
        was, found = _saved_value(saved, key.name)
        now = value_of(run, key.name)
        if found and _comparable(key, was) != _comparable(key, now):
            yield f"{key.name}={_shown(key, was)} (now {_shown(key, now)})"


def _saved_value(saved: Any, name: str) -> tuple[Any, bool]:
    for part in name.split("."):
        if not isinstance(saved, dict) or part not in saved:
            return None, False
        saved = saved[part]
    return saved, True


def _absolute(key: Key, value: Any) -> Any:
    return str(Path(value).absolute()) if key.is_path and value is not None else value


def _comparable(key: Key, value: Any) -> Any:
    """A path by the folder that it leads to, so that a link in its old place is the same; modules in any order."""
    if key.is_path and isinstance(value, str):
        return Path(value).resolve()
    return sorted(map(str, value)) if isinstance(value, list) else value


def _shown(key: Key, value: Any) -> str:
    return quoted(value) if key.is_path and isinstance(value, str) else shown(value)
