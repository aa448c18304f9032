"""stage.epochs becomes stage.train_steps before anything is started."""

import json
import shlex
import zipfile

import numpy as np
import pytest
from stream_settings import stream_settings

from nemo_amalia.cli import parser
from nemo_amalia.config.schema import DataConfig, ModelConfig, RunConfig, StageConfig
from nemo_amalia.data.packing.index import stage_settings, write_index
from nemo_amalia.training.preflight.steps import settle_steps
from nemo_amalia.utils.errors import UserError

PACKS = 10


@pytest.fixture
def run(tmp_path):
    (tmp_path / "data" / ".nv-meta").mkdir(parents=True)
    (tmp_path / "data" / ".nv-meta" / "index.uuid").write_text("abc\n")
    head = {
        "settings": stage_settings(stream_settings(seq_length=64)) | {"tokenizer": "t"},
        "data": {"identity": "abc", "folder": "data", "shards": ["s.tar"]},
        "totals": {"packs": PACKS, "tokens": 600, "loss_tokens": 100},
    }
    ones = np.ones(PACKS, dtype=np.int64)
    write_index(tmp_path / "i", head, {n: ones for n in ("counts", "shards", "offsets", "sizes", "lengths")})
    return RunConfig(
        stage=StageConfig(name="sft", train_steps=7, global_batch_size=4, seq_length=64),
        data=DataConfig(path=str(tmp_path / "data"), pack_index=str(tmp_path / "i")),
    )


@pytest.mark.parametrize(("epochs", "steps", "more"), [(1.0, 3, 2), (2.0, 5, 0), (0.1, 1, 3), (0.4, 1, 0), (3.0, 8, 2)])
def test_steps_cover_the_epochs(run, epochs, steps, more):
    run.stage.epochs = epochs
    line = settle_steps(run)
    assert run.stage.train_steps == steps
    assert line.startswith(
        f"[data] {epochs:g} epochs of 10 packs (600 tokens, 100 to learn) are {steps} steps of 4 packs"
    )
    assert line.endswith(f"; {more} packs of the next epoch fill the last step" if more else "steps of 4 packs")
    assert settle_steps(run) == line  # every rank does it again


def test_steps_stay_as_they_are_without_epochs(run):
    assert settle_steps(run) is None and run.stage.train_steps == 7
    run.data.pack_index = None
    assert settle_steps(run) is None and run.stage.train_steps == 7


def test_an_index_of_another_stage_or_folder_is_refused_before_a_rank_starts(run, tmp_path):
    run.parallel.context = 2
    with pytest.raises(UserError, match="segment_multiple was 1 and is 4"):
        settle_steps(run)
    run.parallel.context = 1
    (tmp_path / "data" / ".nv-meta" / "index.uuid").write_text("def")
    with pytest.raises(UserError, match="the shards were abc and those of .*/data are def"):
        settle_steps(run)


def test_an_index_of_another_format_is_refused_with_the_command_that_makes_a_new_one(run, tmp_path):
    with zipfile.ZipFile(tmp_path / "old packs", "w") as file:
        file.writestr("head.json", json.dumps({"format": "amalia pack index 1", "settings": {}}))
    run.data.pack_index, run.model = str(tmp_path / "old packs"), ModelConfig(checkpoint=str(tmp_path / "my run"))
    run.stage.tiling, run.data.max_image_pixels, run.stage.name = False, 5000, "dpo"
    with pytest.raises(UserError, match="has format 'amalia pack index 1', expected 'amalia pack index 2'") as info:
        settle_steps(run)
    message = str(info.value)
    assert message.startswith(f"'{tmp_path}/old packs' has") and "remove it" in message and "\n" not in message
    again = parser(with_data=True).parse_args(shlex.split(message.split("`")[1])[1:])
    assert (again.source, again.assets, again.out) == tuple(
        tmp_path / name for name in ("data", "my run/hf", "old packs")
    )
    assert (again.seq_length, again.segment_multiple, again.tiling) == (64, 1, False)
    assert (again.max_image_pixels, again.sample_kind) == (5000, "preferences")
