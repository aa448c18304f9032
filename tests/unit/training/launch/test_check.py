"""`amalia train --check`: what cannot run is one line before a rank starts, and before torch is loaded."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import yaml
from light_cli import run_light

from nemo_amalia.bridge.saved_sizes import read_sizes
from nemo_amalia.config.compose import compose
from nemo_amalia.config.key import keys_of
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.training.launch.train import check
from nemo_amalia.training.preflight.resume import keep_config
from nemo_amalia.utils.errors import UserError

SAVED = Path(__file__).resolve().parents[3] / "data" / "checkpoints" / "139eb4f_imported.yaml"  # 4 layers, 4 heads
NUMERIC = [key for key in keys_of(RunConfig) if key.numeric]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of the demo's sizes without its weights, and a data folder without samples."""
    import torch
    from torch.distributed.checkpoint import FileSystemWriter, save

    place = tmp_path_factory.mktemp("check")
    iteration = place / "checkpoint" / "iter_0000012"
    save({"weight": torch.zeros(1)}, storage_writer=FileSystemWriter(iteration), no_dist=True)
    shutil.copy(SAVED, iteration / "run_config.yaml")
    (iteration / "metadata.json").write_text("{}")
    (place / "checkpoint" / "latest_checkpointed_iteration.txt").write_text("12")
    (place / "checkpoint" / "hf").mkdir()
    (place / "checkpoint" / "hf" / "config.json").write_text("{}")
    (place / "data" / ".nv-meta").mkdir(parents=True)
    for name in ("shard-000000.tar", ".nv-meta/dataset.yaml", ".nv-meta/split.yaml"):
        (place / "data" / name).touch()
    return place


def words(folder, *more, run_dir="run"):
    own = ["stage=sft_demo", "precision=fp32", f"model.checkpoint={folder}/checkpoint", f"data.path={folder}/data"]
    return [*own, f"run_dir={folder}/{run_dir}", *more]


def outside(key, turn):
    """A number that is too small, too large, or none; tests/unit/config/test_schema.py has all three of every key."""
    small = key.least - 1 if key.above is None else key.above
    return f"{key.name}={(small, (key.below or key.most) * 10, 'nan')[turn % 3]}"


def test_no_number_out_of_its_range_passes(folder):
    asked = [(key, outside(key, turn)) for turn, key in enumerate(NUMERIC)]
    said = run_light(*(["train", "--check", *words(folder, word)] for _, word in asked))
    for (key, word), line in zip(asked, said, strict=True):
        assert line.startswith(f"error: {key.name}") and line.endswith(key.remedy()), (word, line)


def test_what_passed_and_could_not_run(folder):
    """Settings that --check accepted: each is refused for what it is, the last by the checkpoint's own shape."""
    asked = {
        "launch.ranks=-1": "launch.ranks is -1: expected a whole number from 1",
        "stage.learning_rates.tower=nan": "stage.learning_rates.tower is nan: expected a number from 0 to 1",
        "stage.learning_rates.tower=inf": "stage.learning_rates.tower is inf",
        "stage.warmup_fraction=2": "stage.warmup_fraction is 2: expected a number from 0 to 1",
        "checkpoint.save_interval=0": "checkpoint.save_interval is 0: expected a whole number from 1",
        "seed=1e23": "seed=1e23: expected a whole number from 0",
        "run_dir=": "run_dir is empty: expected a path",
        "data.num_workers=100000": "data.num_workers is 100000: expected a whole number from 0 to 512",
        "parallel.tensor=16": "the model has 4 attention heads, parallel.tensor is 16 and does not divide them",
        "parallel.pipeline=100": "the model has 4 decoder layers, and 100 pipeline stages x virtual_pipeline 1 do not",
    }
    said = run_light(*(["train", "--check", *words(folder, word)] for word in asked))
    for (word, says), line in zip(asked.items(), said, strict=True):
        assert line.startswith(f"error: {says}"), (word, line)


def test_a_resume_of_another_run_is_refused_at_once(folder):
    keep_config(compose(words(folder, run_dir="begun")))
    shutil.copytree(folder / "checkpoint", folder / "begun" / "checkpoints")
    more = ["optim.clip_grad=0.5", "stage.trainable=[connector,decoder]"]
    [line] = run_light(["train", "--check", *words(folder, *more, run_dir="begun")])
    assert line.startswith(f"error: {folder}/begun goes on after step 12 of a run with stage.trainable=[tower,conn")
    assert "optim.clip_grad=1 (now 0.5): give those, or begin another run" in line


def test_what_can_run_passes(folder):
    run = compose(words(folder, "parallel.tensor=2", "parallel.pipeline=4", "stage.global_batch_size=8"))
    assert check(run, 8) == f"[sft] checked: 8 ranks, 360 steps, starts from {folder}/checkpoint"
    assert not (folder / "run" / "run_config.json").exists()


def test_sizes_are_those_of_the_checkpoint(folder, tmp_path):
    sizes = read_sizes(folder / "checkpoint")
    assert dataclasses.astuple(sizes) == (4, 128, 384, 4, 2, 32, 1024)
    shutil.copytree(folder / "checkpoint", tmp_path / "other")
    file = tmp_path / "other" / "iter_0000012" / "run_config.yaml"
    saved = yaml.safe_load(file.read_text())
    saved["model"] |= {"kv_channels": None, "num_query_groups": None}
    file.write_text(yaml.safe_dump(saved))
    assert read_sizes(tmp_path / "other").kv_channels is None
    for model in ({**saved["model"], "num_layers": "4"}, {}, None):
        file.write_text(yaml.safe_dump({"model": model}))
        with pytest.raises(UserError, match="for model.num_layers, expected a whole number above 0: make the check"):
            read_sizes(tmp_path / "other")
