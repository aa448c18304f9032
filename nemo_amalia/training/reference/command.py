"""The `amalia reference` command that makes a run's file: to be pasted, with the run's stage, layout and precision.

A run has values and not the words that gave them, so the words are found again: of each folder of conf/ the file that
has most of the run's values, and what differs from it by its key.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nemo_amalia.config.compose import CONF
from nemo_amalia.config.schema import DataConfig, ParallelConfig, PrecisionConfig, RunConfig, StageConfig

# What the file, or whether it can be made on these ranks, depends on. Not virtual_pipeline: forward passes go without.
_STAGE = ("tiling", "seq_length")
_DATA = ("max_image_pixels",)
_PRECISION = tuple(PrecisionConfig.__dataclass_fields__)
_LAYOUT = ("tensor", "sequence", "pipeline", "context", "first_stage_layers", "last_stage_layers")


def reference_command(run: RunConfig) -> str:
    """The command that makes, and completes, this run's file."""
    words = ["amalia", "reference", "--checkpoint", run.model.checkpoint, "--data", run.data.path]
    if run.stage.reference_file is not None:
        words += ["--out", run.stage.reference_file]
    words += _words("stage", "dpo", run.stage, StageConfig, _STAGE, must="name")
    words += _words("data", "default", run.data, DataConfig, _DATA)
    words += _words("precision", "bf16", run.precision, PrecisionConfig, _PRECISION, must="recipe")
    for name in _LAYOUT:
        value = getattr(run.parallel, name)
        if value != getattr(ParallelConfig, name):
            words.append(f"parallel.{name}={_said(value)}")
    if run.launch.ranks is not None:
        words.append(f"launch.ranks={run.launch.ranks}")
    return shlex.join(str(word) for word in words)


def _words(group: str, usual: str, part: Any, schema: type, names: tuple[str, ...], must: str = "") -> list[str]:
    """GROUP=FILE where that is not the usual one, and those of `names` that FILE has otherwise. must: a key that has to
    agree for a file to be taken at all.
    """
    own, found = OmegaConf.to_container(OmegaConf.structured(part)), {}
    for file in sorted((CONF / group).glob("*.yaml"), key=lambda file: (file.stem != usual, file.stem)):
        values = _values(file, schema)
        if not must or values[must] == own[must]:
            found[file.stem] = values
    if not found:  # such a recipe has no file
        name, values = usual, _values(CONF / group / f"{usual}.yaml", schema)
    else:  # the first of those that agree in most: max keeps the order
        name, values = max(found.items(), key=lambda item: sum(item[1][key] == own[key] for key in own))
    words = [] if name == usual else [f"{group}={name}"]
    return words + [f"{group}.{key}={_said(own[key])}" for key in names if own[key] != values[key]]


def _values(file: Path, schema: type) -> dict[str, Any]:
    """What a file of conf/ gives, with the schema's defaults and those of the files that it starts from."""
    return OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(schema), *_layers(file)))


def _layers(file: Path) -> list[Any]:
    own = OmegaConf.load(file)
    before = [name for name in own.pop("defaults", []) if name != "_self_"]
    return [layer for name in before for layer in _layers(file.with_name(f"{name}.yaml"))] + [own]


def _said(value: Any) -> str:
    """As an override says it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
