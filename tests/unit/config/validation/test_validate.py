"""Combinations that cannot run are refused on the launching side, each in one line that says what to do."""

import copy
import os

import pytest

from nemo_amalia.config.compose import compose
from nemo_amalia.config.validation.run import pack_command, validate
from nemo_amalia.utils.errors import UserError


@pytest.fixture
def run(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shard-000000.tar").touch()
    places = [
        f"run_dir={tmp_path}/run",
        f"model.checkpoint={tmp_path}/checkpoint",
        f"data.path={tmp_path}/data",
    ]
    return compose(["stage=sft_demo", "stage.global_batch_size=4", "precision=fp32", *places])


def refused(run, world, said, **changes):
    changed = copy.deepcopy(run)
    for key, value in changes.items():
        part, _, name = key.partition("__")
        setattr(getattr(changed, part) if name else changed, name or part, value)
    with pytest.raises(UserError) as caught:
        validate(changed, world)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_good_run_passes(run):
    validate(run, 1)
    validate(run, 4)


def test_layouts(run):
    refused(run, 3, "does not divide the world of 3 ranks", parallel__tensor=2)
    refused(run, 8, "is not a multiple of micro_batch_size x data-parallel ranks = 1 x 8 = 8")
    refused(run, 1, "parallel.sequence=true needs parallel.tensor > 1", parallel__sequence=True)
    refused(run, 2, "does not cut into 4 parts", parallel__context=2, stage__seq_length=2050)
    refused(run, 1, "parallel.virtual_pipeline is 2: it needs", parallel__virtual_pipeline=2)


def test_stages(run):
    refused(run, 1, "stage.schedule is linear: choose one of", stage__schedule="linear")
    refused(run, 1, "stage.trainable is empty", stage__trainable=[])
    refused(run, 1, "choose one of tower, connector, decoder", stage__trainable=["lm"])
    refused(run, 1, "a pack is already a whole row", stage__micro_batch_size=2)
    refused(run, 1, "stage.train_steps is 0: expected a whole number from 1", stage__train_steps=0)
    refused(run, 1, "a pair is two segments of one pack", stage__name="dpo", stage__packing=False)
    rates = copy.deepcopy(run.stage.learning_rates)
    rates.tower = 0.0
    refused(run, 1, "learning_rates.tower is 0", stage__learning_rates=rates)


def test_data(run, tmp_path):
    refused(run, 1, "does not exist: name a .jsonl", data__quarantine=f"{tmp_path}/none")
    own = tmp_path / "run" / "quarantine"
    own.mkdir(parents=True)
    (own / "0.jsonl").touch()
    for path in (own, own / "0.jsonl"):
        refused(run, 1, "is the list that this very run writes", data__quarantine=str(path))


def test_length(run, tmp_path):
    refused(run, 1, "stage.train_steps is null: give a number of steps, or stage.epochs", stage__train_steps=None)
    made = f"`amalia data pack {tmp_path}/data --assets {tmp_path}/checkpoint/hf --out"
    refused(run, 1, f"run {made} data.packs --seq-length 4096`", stage__epochs=1.0)
    refused(run, 1, f"make it with {made} {tmp_path}/none --seq-length", data__pack_index=f"{tmp_path}/none")
    (tmp_path / "index").touch()
    run.data.pack_index = f"{tmp_path}/index"
    refused(run, 1, "stage.epochs is 0: expected a number above 0", stage__epochs=0.0)
    refused(run, 1, "set stage.packing=true, or take no index", stage__packing=False)
    run.stage.epochs, run.data.quarantine = 1.5, f"{tmp_path}/index"
    validate(run, 1)


def test_the_command_that_makes_an_index_has_the_runs_own_settings(run):
    run.parallel.context, run.stage.tiling = 2, False
    assert pack_command(run, "x").endswith("--out x --seq-length 4096 --segment-multiple 4 --no-tiling")


def test_places(run, tmp_path):
    refused(run, 1, "is not a folder: make it with `amalia import", model__checkpoint=f"{tmp_path}/none")
    refused(run, 1, "does not exist", data__path=f"{tmp_path}/none")
    (tmp_path / "empty").mkdir()
    refused(run, 1, "has no .tar shard", data__path=f"{tmp_path}/empty")


def test_a_run_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").touch()
    refused(run, 1, "cannot be written", run_dir=f"{tmp_path}/file/run")
    if os.geteuid():  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        refused(run, 1, "cannot be written", run_dir=f"{tmp_path}/closed/run")
