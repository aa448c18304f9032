"""Settings of stage dpo that cannot be meant, refused in one line each."""

import copy

import pytest

from nemo_amalia.config.compose import compose
from nemo_amalia.config.validation.run import validate
from nemo_amalia.utils.errors import UserError


@pytest.fixture
def run(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shard-000000.tar").touch()
    places = [f"run_dir={tmp_path}/run", f"model.checkpoint={tmp_path}/checkpoint", f"data.path={tmp_path}/data"]
    return compose(["stage=dpo", "stage.global_batch_size=4", *places])


def test_the_stage_of_conf_passes(run):
    validate(run, 1)
    assert run.stage.preference.reference_policy_kl_penalty == 0.1 and run.stage.reference == "precomputed"


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"label_smoothing": 0.1, "preference_loss": "ipo"}, "ipo has none"),
        ({"preference_loss_weight": 0.0}, "there is no loss"),
    ],
)
def test_losses_that_cannot_be(run, changes, said):
    for name, value in changes.items():
        setattr(run.stage.preference, name, value)
    with pytest.raises(UserError, match=said) as caught:
        validate(run, 1)
    assert "\n" not in str(caught.value)
    other = copy.deepcopy(run)
    other.stage.name = "sft"  # which reads none of them
    validate(other, 1)


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("preference.preference_loss", "hinge", "choose one of sigmoid, ipo, robust"),
        ("preference.reference_policy_kl_penalty", 0.0, "expected a number above 0"),
        ("preference.label_smoothing", 0.5, "expected a number of at least 0 and below 0.5"),
        ("preference.sft_loss_weight", -1.0, "expected a number from 0"),
        ("reference", "online", "choose one of precomputed, in_memory"),
    ],
)
def test_what_the_schema_does_not_allow_is_refused_of_every_stage(run, name, value, said):
    section, _, last = name.rpartition(".")
    setattr(run.stage.preference if section else run.stage, last, value)
    for stage in ("dpo", "sft"):
        run.stage.name = stage
        with pytest.raises(
            UserError, match=f"stage.{name} is {value:{'g' if isinstance(value, float) else ''}}: {said}"
        ):
            validate(run, 1)


def test_references(run):
    run.stage.reference, run.stage.reference_file = "in_memory", "pairs.parquet"
    with pytest.raises(UserError, match="reads none"):
        validate(run, 1)
    run.stage.reference_file, run.parallel.pipeline = None, 2
    with pytest.raises(UserError, match="set stage.reference=precomputed, or set parallel.pipeline=1"):
        validate(run, 2)
