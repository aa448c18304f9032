"""What `amalia plan` and `amalia dryrun` are asked about: a run as `amalia train` takes it, without the folders."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from nemo_amalia.bridge.assets import read_part
from nemo_amalia.cluster.plan.architecture import NO_PLACE, config_folder, hf_config
from nemo_amalia.cluster.plan.shape import ModelShape, shape_of
from nemo_amalia.config.compose import compose
from nemo_amalia.config.derived import model_ranks
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.config.validation.layout import validate_layout
from nemo_amalia.config.validation.model import check_model_layout
from nemo_amalia.config.validation.precision import validate_precision
from nemo_amalia.config.validation.ranges import check_ranges
from nemo_amalia.utils.errors import ConfigError

PLACES = ("run_dir", "data.path", "model.checkpoint")
# text_config's names of what a layout has to divide. What transformers writes names them all.
SIZES = {
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_query_groups",
    "head_dim": "kv_channels",
    "vocab_size": "vocab_size",
    "intermediate_size": "ffn_hidden_size",
    "num_hidden_layers": "num_layers",
    "hidden_size": "hidden_size",
}


def requested(overrides: list[str]) -> RunConfig:
    """The run of ``overrides``; folders that are not named are not needed, and the model is then the paper's.

    Raises ConfigError as `amalia train` does.
    """
    given = {word.lstrip("+").partition("=")[0] for word in overrides}
    words = [f"{place}={NO_PLACE}" for place in PLACES if place not in given]
    if not given & {"model", "model.checkpoint", "model.architecture"}:
        words.append("model=amalia_9b")
    run = compose([*words, *overrides])
    check_ranges(run)
    return run


def settled(overrides: list[str], asked: int | None) -> tuple[RunConfig, ModelShape, int]:
    """(run, model, GPUs), everything checked that needs no Megatron. Raises ConfigError for what cannot run."""
    run, world = checked(overrides, asked)
    return run, model_of(run, world), world


def checked(overrides: list[str], asked: int | None) -> tuple[RunConfig, int]:
    """(run, GPUs), checked by the run's own numbers and the sizes in config.json: at once, without transformers.

    Raises ConfigError for what cannot run.
    """
    run = requested(overrides)
    world = world_of(run, asked)
    _check_run(run, world)
    sizes = _written_sizes(config_folder(run))
    if sizes is not None:
        check_model_layout(run, sizes, engine=True)
    return run, world


def model_of(run: RunConfig, world_size: int) -> ModelShape:
    """The model of a run, which takes the import of transformers. Raises ConfigError for one that does not fit it."""
    shape = shape_of(hf_config(run))
    check(run, shape, world_size)
    return shape


def check_plannable(run: RunConfig) -> None:
    """Raise ConfigError where cluster= names no GPU, or the stage no number of steps: a plan has nothing to count."""
    if not run.cluster.gpu:
        raise ConfigError("no GPU to reckon with: add cluster=marenostrum5 or cluster=dgx_h100 (conf/cluster)")
    if run.stage.train_steps is None:
        raise ConfigError("stage.train_steps is not given and a plan counts hours: add stage.train_steps=N")


def world_of(run: RunConfig, asked: int | None) -> int:
    """GPUs of the job: asked for, or what the layout was made for, or one copy of the model.

    Raises ConfigError where the two disagree.
    """
    made_for = run.parallel.world_size
    if asked is not None and made_for is not None and asked != made_for:
        raise ConfigError(
            f"parallel.world_size is {made_for} and --world-size {asked}: take a layout of conf/parallel that was made "
            f"for {asked} GPUs, or add parallel.world_size={asked}"
        )
    return asked or made_for or model_ranks(run)


def check(run: RunConfig, shape: ModelShape, world_size: int) -> None:
    """Raise ConfigError for a layout that cannot run, before anything is built."""
    _check_run(run, world_size)
    d = shape.decoder
    sizes = SimpleNamespace(
        num_attention_heads=d.heads,
        num_query_groups=d.key_value * d.heads // d.query,
        kv_channels=d.query // d.heads,
        vocab_size=shape.vocabulary,
        ffn_hidden_size=d.ffn,
        num_layers=d.layers,
        hidden_size=d.hidden,
    )
    check_model_layout(run, sizes, engine=True)


def _check_run(run: RunConfig, world_size: int) -> None:
    """What the run's own numbers say, without the model."""
    validate_precision(run)
    validate_layout(run, world_size)


def _written_sizes(folder: Path) -> SimpleNamespace | None:
    """The decoder's sizes as config.json writes them; None where one is left to transformers' defaults.

    Raises ConfigError where the file cannot be read.
    """
    written = read_part(folder / "config.json").get("text_config")
    found = {ours: (written or {}).get(name) for name, ours in SIZES.items()}
    return SimpleNamespace(**found) if all(type(size) is int and size > 0 for size in found.values()) else None


def pack_lengths(index: Path | None):
    """Packs of an index of `amalia data pack` as lists of segment lengths, or None."""
    if index is None:
        return None
    from nemo_amalia.data.packing.index import read_index

    found = read_index(index)
    return [found.lengths[a:b].tolist() for a, b in zip(found.starts[:-1], found.starts[1:], strict=True)]
