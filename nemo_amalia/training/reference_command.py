"""The `amalia reference` command that makes the file of a run, with the words that its fingerprint and memory need."""

from __future__ import annotations

from omegaconf import OmegaConf

from nemo_amalia.config.compose import CONF
from nemo_amalia.config.schema import DataConfig, ParallelConfig, PrecisionConfig, RunConfig, StageConfig

_LAYOUT = ("tensor", "sequence", "pipeline", "context")


def reference_command(run: RunConfig) -> str:
    """The command that makes, and completes, this run's file."""
    words = ["amalia reference", f"--checkpoint {run.model.checkpoint}", f"--data {run.data.path}"]
    if run.stage.reference_file is not None:
        words.append(f"--out {run.stage.reference_file}")
    if run.precision.recipe != PrecisionConfig.recipe:
        words.append(_precision(run.precision.recipe))
    if run.stage.tiling != StageConfig.tiling:
        words.append(f"stage.tiling={str(run.stage.tiling).lower()}")
    if run.data.max_image_pixels != DataConfig.max_image_pixels:
        words.append(f"data.max_image_pixels={run.data.max_image_pixels}")
    for name in _LAYOUT:
        value = getattr(run.parallel, name)
        if value != getattr(ParallelConfig, name):
            words.append(f"parallel.{name}={str(value).lower()}")
    return " ".join(words)


def _precision(recipe: str) -> str:
    """precision=NAME of the file of conf/precision with this recipe; several may share it, and any gives it."""
    for file in sorted((CONF / "precision").glob("*.yaml")):
        if OmegaConf.load(file).get("recipe") == recipe:
            return f"precision={file.stem}"
    return f"precision.recipe={recipe}"
