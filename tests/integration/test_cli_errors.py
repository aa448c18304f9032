"""Bad input through the real command: one clear line, a non-zero exit, and no rank left waiting."""

import subprocess
import sys

import pytest

ROOT_MODULE = [sys.executable, "-m", "nemo_amalia.cli"]


def amalia(*words, timeout=60):
    done = subprocess.run([*ROOT_MODULE, *map(str, words)], capture_output=True, text=True, timeout=timeout)
    return done.returncode, [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error:")]


@pytest.fixture
def places(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shard-000000.tar").touch()
    (tmp_path / "checkpoint").mkdir()
    return [f"run_dir={tmp_path}/run", f"model.checkpoint={tmp_path}/checkpoint", f"data.path={tmp_path}/data"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage.globl_batch_size=4"], "did you mean stage.global_batch_size?"),
        (["parallel.tensor=2", "launch.ranks=3"], "does not divide the world of 3 ranks"),
        (["data.path=nowhere"], "does not exist"),
        (["model.checkpoint=nowhere"], "make it with `amalia import"),
        (["run_dir=/proc/nowhere"], "cannot be written"),
    ],
)
def test_train_refuses_before_any_rank_starts(places, words, said):
    code, errors = amalia("train", "stage=sft_demo", "precision=fp32", *places, *words)
    assert code == 2 and len(errors) == 1 and said in errors[0]


def test_import_and_export_words():
    code, errors = amalia("import", "--vision", "a", "--out", "b")
    assert code == 2 and errors == ["error: --vision and --llm go together: one gives the tower, the other the decoder"]
    code, errors = amalia("import", "--out", "b")
    assert code == 2 and "takes either --hf DIR" in errors[0]


def test_an_empty_data_folder(places, tmp_path):
    (tmp_path / "empty").mkdir()
    code, errors = amalia("train", *places, f"data.path={tmp_path}/empty")
    assert code == 2 and len(errors) == 1 and "has no .tar shard" in errors[0]


def test_a_torn_checkpoint(places, tmp_path):
    """The folder is there, its iteration was cut off while it was written."""
    from tiny_shards import conversations

    from nemo_amalia.data.shards.write import write_shards

    write_shards(conversations(4), tmp_path / "whole")
    (tmp_path / "checkpoint" / "latest_checkpointed_iteration.txt").write_text("7")
    (tmp_path / "checkpoint" / "iter_0000007").mkdir()
    code, errors = amalia("train", "stage=sft_demo", "precision=fp32", *places, f"data.path={tmp_path}/whole")
    assert code == 2 and len(errors) == 1 and "iter_0000007 is torn" in errors[0]


def test_shards_without_an_index(places):
    code, errors = amalia("train", "stage=sft_demo", "precision=fp32", *places)
    assert code == 2 and len(errors) == 1 and "energon prepare" in errors[0]


def test_help_comes_at_once():
    done = subprocess.run([*ROOT_MODULE, "--help"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and "amalia train stage=alignment" in done.stdout
