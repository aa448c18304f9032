"""conf/ and overrides become a RunConfig, or one clear line."""

import pytest

from nemo_amalia.config.compose import APART, CONF, compose
from nemo_amalia.config.overrides import known_keys
from nemo_amalia.config.schema import RENAMED
from nemo_amalia.utils.errors import UserError

PLACES = ["run_dir=runs/x", "model.checkpoint=ckpt", "data.path=data"]


def test_the_papers_stage_table():
    """Section 6: batch, schedule, sequence, tiles and what is trained."""
    alignment, sft = compose(["stage=alignment", *PLACES]).stage, compose(["stage=sft", *PLACES]).stage
    assert (alignment.global_batch_size, alignment.schedule, alignment.seq_length) == (512, "constant", 2048)
    assert (alignment.tiling, alignment.trainable) == (False, ["connector"])
    assert (sft.global_batch_size, sft.schedule, sft.seq_length) == (128, "cosine", 16384)
    assert (sft.tiling, sft.trainable) == (True, ["tower", "connector", "decoder"])


@pytest.mark.parametrize("group", [path.name for path in CONF.iterdir() if path.is_dir() and path.name not in APART])
def test_every_choice_composes(group):
    choices = sorted((CONF / group).glob("*.yaml"))
    assert choices
    for choice in choices:
        compose([f"{group}={choice.stem}", *PLACES])


def test_a_recipe_is_a_difference_from_the_papers():
    demo = compose(["stage=sft_demo", *PLACES]).stage
    assert demo.schedule == "cosine" and demo.trainable == ["tower", "connector", "decoder"] and demo.seq_length < 16384


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage.train_stepz=3"], "did you mean stage.train_steps?"),
        (["paralel.tensor=2"], "did you mean parallel.tensor?"),
        (["stage=sftt"], "did you mean sft?"),
        (["stage=xyzxyz"], "conf/stage has alignment"),
        (["zzz=1"], "known at the top: run_dir"),
        (
            ["data.max_loss_share=0.1"],
            "max_loss_share is called data.max_dropped_fraction: write data.max_dropped_fraction=0.1",
        ),
        (["+data.max_loss_share=a b"], "write 'data.max_dropped_fraction=a b'"),
        (["mix=sft"], "belongs to `amalia data mix`"),
        (["data_prep=sepic"], "make data with `amalia-data NAME run`"),
        (["train"], "write key=value"),
        (["stage.train_steps=4", "stage.epochs=2"], "stage.train_steps and stage.epochs are both given"),
        (["stage.train_steps=many"], "stage.train_steps=many: expected a whole number"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_remedy(words, said):
    with pytest.raises(UserError) as caught:
        compose([*words, *PLACES])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_epochs_take_the_place_of_the_stages_steps():
    assert compose(["stage.epochs=2", "stage.train_steps=null", *PLACES]).stage.train_steps is None
    assert compose(["stage.epochs=0.5", *PLACES]).stage.epochs == 0.5


def test_values_that_the_user_must_give_are_named():
    with pytest.raises(UserError, match="no value for data.path, model.checkpoint: add data.path="):
        compose(["run_dir=x"])


def test_known_keys_reach_every_leaf():
    keys = known_keys()
    assert {"stage.learning_rates.tower", "parallel.first_stage_layers", "launch.ranks", "seed"} <= set(keys)


def test_a_renamed_key_is_no_key_and_its_new_name_is_one():
    keys = set(known_keys())
    assert set(RENAMED.values()) <= keys and not set(RENAMED) & keys
