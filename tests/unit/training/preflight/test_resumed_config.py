"""A run that resumes is the run that began: every key that decides the weights is compared (config/schema.py)."""

import copy
import json
from pathlib import Path

import pytest

from nemo_amalia.config.compose import compose
from nemo_amalia.config.key import keys_of, value_of
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.training.preflight.resume import check_resume, keep_config
from nemo_amalia.utils.errors import DataError, UserError
from nemo_amalia.utils.files import quoted

KEYS = list(keys_of(RunConfig))
# Values that no file of conf/ has, in range.
OTHER = {bool: lambda value: not value, int: lambda value: (value or 2) + 1, float: lambda value: (value or 0.25) / 2}


@pytest.fixture
def run(tmp_path):
    """A run that began, and saved step 30."""
    run = compose(["stage=dpo_demo", f"run_dir={tmp_path}/run", "model.checkpoint=ckpt", "data.path=data"])
    keep_config(run)
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("30\n")
    return run


def another(key, value):
    if key.kind is list:
        return value[:-1]
    if key.choices:
        return next(choice for choice in key.choices if choice != value)
    return f"{value}-other" if key.kind is str else OTHER[key.kind](value)


def changed(run, key):
    other = copy.deepcopy(run)
    *sections, last = key.name.split(".")
    place = other
    for section in sections:
        place = getattr(place, section)
    value = another(key, getattr(place, last))
    assert key.fits(value)
    setattr(place, last, value)
    return other


def test_the_same_run_goes_on(run):
    check_resume(run)


@pytest.mark.parametrize("key", [key for key in KEYS if key.on_resume == "same"], ids=lambda key: key.name)
def test_a_key_that_must_stay_is_refused_by_name(run, key):
    other = changed(run, key)
    with pytest.raises(UserError) as caught:
        check_resume(other)
    message = str(caught.value)
    assert f"goes on after step 30 of a run with {key.name}=" in message and message.count("(now ") == 1
    assert f"model.checkpoint={run.run_dir}/checkpoints and another run_dir" in message and "\n" not in message


@pytest.mark.parametrize("key", [key for key in KEYS if key.on_resume == "free"], ids=lambda key: key.name)
def test_a_free_key_may_change(run, key):
    if key.name != "run_dir":
        check_resume(changed(run, key))


def test_every_difference_is_named_with_both_values(run):
    run.stage.trainable = ["tower", "decoder"]
    run.optim.adam_beta2, run.optim.clip_grad, run.model.checkpoint = 0.999, 0.5, "a b"
    with pytest.raises(UserError) as caught:
        check_resume(run)
    said = "optim.adam_beta2=0.95 (now 0.999), optim.clip_grad=1 (now 0.5): give those, or begin another run"
    assert "stage.trainable=[tower,connector,decoder] (now [tower,decoder]), " in str(caught.value)
    assert f"{quoted(Path('ckpt').absolute())} (now 'a b'), " in str(caught.value) and said in str(caught.value)


def test_what_is_the_same_in_other_words(run, tmp_path, monkeypatch):
    """Modules in another order, an integer for a float, a path from another folder, a link in the old place."""
    run.stage.trainable = ["decoder", "tower", "connector"]
    run.optim.weight_decay = 0
    kept = json.loads((tmp_path / "run" / "run_config.json").read_text())
    run.data.path = kept["data"]["path"]
    monkeypatch.chdir(tmp_path)
    kept["model"]["checkpoint"] = str(tmp_path / "old")
    (tmp_path / "run" / "run_config.json").write_text(json.dumps(kept))
    (tmp_path / "moved").mkdir()
    (tmp_path / "old").symlink_to("moved")
    run.model.checkpoint = "moved"
    check_resume(run)


def test_every_float_is_kept_exactly(run, tmp_path):
    kept = json.loads((tmp_path / "run" / "run_config.json").read_text())
    for key in KEYS:
        found = kept
        for part in key.name.split("."):
            found = found[part]
        assert key.is_path or found == value_of(run, key.name), key.name


def test_a_refused_or_resumed_start_leaves_the_configuration_alone(run, tmp_path):
    file = tmp_path / "run" / "run_config.json"
    before = file.read_bytes()
    run.optim.clip_grad = 0.5
    keep_config(run)
    assert file.read_bytes() == before
    (tmp_path / "run" / "checkpoints" / "latest_checkpointed_iteration.txt").unlink()  # nothing was saved: a new run
    keep_config(run)
    check_resume(run)
    assert json.loads(file.read_text())["optim"]["clip_grad"] == 0.5


def test_a_key_that_is_newer_than_the_run_is_not_compared(run, tmp_path):
    file = tmp_path / "run" / "run_config.json"
    kept = json.loads(file.read_text())
    del kept["optim"]["clip_grad"], kept["precision"]
    file.write_text(json.dumps(kept | {"gone": 1}))
    run.optim.clip_grad, run.precision.recipe = 0.5, "fp32"
    check_resume(run)


def test_a_corrupt_configuration_is_named(run, tmp_path):
    (tmp_path / "run" / "run_config.json").write_text("{")
    with pytest.raises(DataError, match="run_config.json is corrupt or truncated"):
        check_resume(run)
