"""What `amalia train` tells a user to run makes the file that it wants: it is pasted, parsed and composed here."""

import shlex

import pytest

from nemo_amalia import cli
from nemo_amalia.config.compose import compose
from nemo_amalia.config.validation.layout import validate_layout
from nemo_amalia.training.launch.reference import reference_overrides, settle_batch
from nemo_amalia.training.launch.train import default_ranks
from nemo_amalia.training.reference.file import reference_command, reference_path

PLACES = ["model.checkpoint=base", "data.path=pairs", "run_dir=runs/x"]
LAYOUT = ("tensor", "sequence", "pipeline", "context", "first_stage_layers", "last_stage_layers")


def pasted(run, words):
    """The run that `amalia reference` makes of the command that `words` lead to, as the terminal gives it."""
    words = shlex.split(reference_command(run, words))
    assert words[:2] == ["amalia", "reference"]
    given = cli.parser().parse_args(words[1:])
    return compose(reference_overrides(given.checkpoint, given.data, given.out, given.overrides))


def same(again, run):
    assert again.model.checkpoint == run.model.checkpoint and again.data.path == run.data.path
    assert reference_path(again).absolute() == reference_path(run).absolute()
    assert again.precision == run.precision
    assert (again.stage.tiling, again.stage.seq_length) == (run.stage.tiling, run.stage.seq_length)
    assert again.data.max_image_pixels == run.data.max_image_pixels
    assert again.launch.ranks == run.launch.ranks
    for name in LAYOUT:
        assert getattr(again.parallel, name) == getattr(run.parallel, name)


@pytest.mark.parametrize("precision", ["bf16", "fp32", "fp8_delayed", "fp8_blockwise"])
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["stage.tiling=false", "data.max_image_pixels=4000"],
        ["parallel=gpus64_node8"],
        ["parallel=gpus128_node8_pp4"],
        ["stage=dpo_demo", "data=demo", "launch.ranks=2"],
        ["stage=dpo_demo", "stage.seq_length=512", "stage.train_steps=5", "data.num_workers=3"],
        ["precision.fused_cross_entropy=false", "precision.first_layers_bf16=2"],
    ],
)
def test_the_command_composes_to_the_same_reference(precision, words):
    words = ["stage=dpo", *PLACES, f"precision={precision}", *words]
    run = compose(words)
    same(pasted(run, words), run)


def test_what_was_given_is_named_as_it_was():
    words = [
        "stage=dpo_demo",
        "data=demo",
        "precision=fp32",
        "launch.ranks=1",
        "parallel=single",
        "data.quarantine='a b'",
    ]
    given = [
        *words[:2],
        *PLACES,
        *words[2:],
        "logging.interval=1",
        "optim.clip_grad=2",
        "cluster=laptop",
        "stop_after=3",
    ]
    command = reference_command(compose(given), given)
    assert command == f"amalia reference --checkpoint base --data pairs {shlex.join(words)}"
    assert reference_command(compose(given)) == "amalia reference --checkpoint base --data pairs"


def test_the_ranks_of_the_command_start():
    words = ["stage=dpo", *PLACES, "parallel=gpus128_node8_pp4_vpp2", "++parallel.virtual_pipeline=2"]
    again = pasted(compose(words), words)
    assert again.parallel.world_size is None and again.parallel.virtual_pipeline is None
    settle_batch(again, default_ranks(again))
    validate_layout(again, default_ranks(again))


def test_a_recipe_that_no_file_has_is_said_by_its_key():
    words = ["stage=dpo", *PLACES, "precision.recipe=fp16_mixed"]
    assert reference_command(compose(words), words).endswith(" pairs stage=dpo precision.recipe=fp16_mixed")


def test_a_file_elsewhere_is_named_and_any_folder_can_be_pasted():
    words = ["stage=dpo", *PLACES, "stage.reference_file=there/r.parquet", "model.checkpoint='my runs/sft'"]
    run, options = compose(words), "--checkpoint 'my runs/sft' --data pairs --out there/r.parquet"
    assert reference_command(run, words) == f"amalia reference {options} stage=dpo"
    same(pasted(run, words), run)


def test_the_command_of_the_command_is_itself():
    """A rank of `amalia reference` has the overrides that reference_overrides made, and names the same file."""
    words = ["stage=dpo_demo", *PLACES, "parallel=tp2"]
    made = shlex.split(reference_command(compose(words), words))
    given = cli.parser().parse_args(made[1:])
    overrides = reference_overrides(given.checkpoint, given.data, given.out, given.overrides)
    run = compose(overrides)
    again = reference_command(run, overrides)
    assert again == shlex.join([*made[:6], "--out", str(reference_path(run)), *made[6:]])
