"""What `amalia plan` and `amalia dryrun` are asked about: a run as `amalia train` takes it, without the folders."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from nemo_amalia.cluster.architecture import NO_PLACE, hf_config
from nemo_amalia.cluster.shape import ModelShape, shape_of
from nemo_amalia.config.compose import compose
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.config.validate_layout import model_ranks, validate_layout
from nemo_amalia.config.validate_precision import validate_precision
from nemo_amalia.training.model_layout import check_model_layout

PLACES = ("run_dir", "data.path", "model.checkpoint")


def requested(overrides: list[str]) -> RunConfig:
    """The run of ``overrides``; folders that are not named are not needed, and the model is then the paper's.

    Raises ValueError as `amalia train` does.
    """
    given = {word.lstrip("+").partition("=")[0] for word in overrides}
    words = [f"{place}={NO_PLACE}" for place in PLACES if place not in given]
    if not given & {"model", "model.checkpoint", "model.architecture"}:
        words.append("model=amalia_9b")
    return compose([*words, *overrides])


def settled(overrides: list[str], asked: int | None) -> tuple[RunConfig, ModelShape, int]:
    """(run, model, GPUs), everything checked that needs no Megatron. Raises ValueError for what cannot run."""
    run = requested(overrides)
    shape, world = shape_of(hf_config(run)), world_of(run, asked)
    check(run, shape, world)
    return run, shape, world


def world_of(run: RunConfig, asked: int | None) -> int:
    """GPUs of the job: asked for, or what the layout was made for, or one copy of the model.

    Raises ValueError where the two disagree.
    """
    made_for = run.parallel.world_size
    if asked is not None and made_for is not None and asked != made_for:
        raise ValueError(
            f"parallel.world_size is {made_for} and --world-size {asked}: take a layout of conf/parallel that was made "
            f"for {asked} GPUs, or add parallel.world_size={asked}"
        )
    return asked or made_for or model_ranks(run)


def check(run: RunConfig, shape: ModelShape, world_size: int) -> None:
    """Raise ValueError for a layout that cannot run, before anything is built."""
    validate_precision(run)
    validate_layout(run, world_size)
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


def pack_lengths(index: Path | None):
    """Packs of an index of `amalia data pack` as lists of segment lengths, or None."""
    if index is None:
        return None
    from nemo_amalia.data.pack_index import read_index

    found = read_index(index)
    return [found.lengths[a:b].tolist() for a, b in zip(found.starts[:-1], found.starts[1:], strict=True)]
