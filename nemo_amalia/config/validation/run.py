"""Combinations that cannot run, refused on the launching side before any rank waits for another."""

from pathlib import Path

from nemo_amalia.config.derived import model_ranks, segment_multiple
from nemo_amalia.config.schema import (
    MODULES,
    PREFERENCE_STAGE,
    DataConfig,
    RunConfig,
)
from nemo_amalia.config.validation.layout import validate_layout
from nemo_amalia.config.validation.precision import validate_precision
from nemo_amalia.config.validation.preference import validate_preference
from nemo_amalia.config.validation.ranges import check_ranges
from nemo_amalia.utils.errors import ConfigError
from nemo_amalia.utils.files import quoted

__all__ = ["model_ranks", "pack_command", "segment_multiple", "validate"]


def validate(run: RunConfig, world_size: int) -> None:
    """Raise ConfigError with what was seen, what was expected and what to do. Reads no weights."""
    check_ranges(run)
    _stage(run)
    if run.stage.name == PREFERENCE_STAGE:
        validate_preference(run)
    _data(run)
    validate_precision(run)
    validate_layout(run, world_size)
    _places(run)


def _stage(run: RunConfig) -> None:
    stage = run.stage
    if not stage.trainable:
        raise ConfigError(f"stage.trainable is empty: name at least one of {', '.join(MODULES)}")
    for name in stage.trainable:
        if getattr(stage.learning_rates, name) == 0:
            raise ConfigError(f"stage.trainable has {name}, but stage.learning_rates.{name} is 0: give it a rate")
    if stage.packing and stage.micro_batch_size != 1:
        raise ConfigError(
            f"stage.micro_batch_size is {stage.micro_batch_size} with packing on: a pack is already a whole row; "
            "set stage.micro_batch_size=1 and choose stage.seq_length for the memory"
        )
    _length(run)


def _data(run: RunConfig) -> None:
    data = run.data
    if run.stage.sample_kind == "preferences" and not run.stage.packing:
        raise ConfigError(
            f"stage {run.stage.name} has stage.packing=false: a pair is two segments of one pack; set "
            "stage.packing=true"
        )
    if data.quarantine is not None and not Path(data.quarantine).exists():
        raise ConfigError(f"data.quarantine {data.quarantine} does not exist: name a .jsonl, or a run's quarantine/")
    own = (Path(run.run_dir) / "quarantine").absolute()
    if data.quarantine is not None and Path(data.quarantine).absolute().is_relative_to(own):
        raise ConfigError(
            f"data.quarantine {data.quarantine} is the list that this very run writes, so its data would change while "
            "it runs: copy it out of run_dir first"
        )


def _length(run: RunConfig) -> None:
    """How long to train: in steps, or in epochs of an index of packs."""
    stage, index = run.stage, run.data.pack_index
    if index is not None and not Path(index).is_file():
        raise ConfigError(f"data.pack_index {index} is not a file: make it with `{pack_command(run, index)}`")
    if index is not None and not stage.packing:
        raise ConfigError(
            "data.pack_index is given and stage.packing is false: set stage.packing=true, or take no index"
        )
    if stage.epochs is None:
        if stage.train_steps is None:
            raise ConfigError("stage.train_steps is null: give a number of steps, or stage.epochs with data.pack_index")
    elif index is None:
        raise ConfigError(
            f"stage.epochs is {stage.epochs:g} and only an index of packs knows how long an epoch is: run "
            f"`{pack_command(run, 'data.packs')}` and add data.pack_index=data.packs, or give stage.train_steps"
        )


def pack_command(run: RunConfig, out: str) -> str:
    """The command that makes this run's index."""
    words = f"amalia data pack {quoted(run.data.path)} --assets {quoted(f'{run.model.checkpoint}/hf')}"
    words += f" --out {quoted(out)}"
    words += f" --seq-length {run.stage.seq_length}"
    words += f" --segment-multiple {segment_multiple(run)}" if run.parallel.context > 1 else ""
    if run.data.max_image_pixels != DataConfig.max_image_pixels:
        words += f" --max-image-pixels {run.data.max_image_pixels}"
    if run.stage.sample_kind == "preferences":
        words += " --sample-kind preferences"
    return words + ("" if run.stage.tiling else " --no-tiling")


def _places(run: RunConfig) -> None:
    checkpoint = Path(run.model.checkpoint)
    if not checkpoint.is_dir():
        raise ConfigError(
            f"model.checkpoint {checkpoint} is not a folder: make it with `amalia import --out {checkpoint}`"
        )
    data = Path(run.data.path)
    if not data.exists():
        raise ConfigError(f"data.path {data} does not exist: name a prepared WebDataset folder")
    if data.is_dir() and not any(data.rglob("*.tar")):
        raise ConfigError(f"data.path {data} has no .tar shard: write some with nemo_amalia.data.shards.write_shards")
    folder = Path(run.run_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another rank of the run may have been first
    except OSError as error:
        raise ConfigError(f"run_dir {folder} cannot be written ({error.strerror}): choose another") from error
