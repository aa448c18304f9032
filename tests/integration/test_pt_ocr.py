"""PT-OCR from its source to a shard that `amalia train` takes."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from launcher import launch
from tiny_checkpoint import write_checkpoint

ROOT = Path(__file__).parents[2]
SHORT = ["together=[1]", "document.paragraphs=[1]", "asking.turns=[1]"]  # the test's tokenizer has a token a byte


def amalia_data(folder, name, *words):
    """A run of 24 samples into folder/name; what it printed."""
    command = [sys.executable, "-m", "data_prep.cli", "pt_ocr", "run", "samples=24", *words]
    command += [f"out={folder}/{name}", f"run_dir={folder}/{name}.run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pt_ocr")
    assert "24 samples" in amalia_data(place, "short", *SHORT)
    return place


def test_counts_reconcile_and_the_same_seed_is_the_same_shard(folder):
    said = amalia_data(folder, "again", *SHORT, "executor.workers=2", "executor.tasks=3", "records_per_chunk=5")
    assert "converse                 24 in = 24 out + 0 dropped" in said
    assert "check                    24 in = 24 out + 0 dropped" in said
    one, two = (folder / name / "shard-000000.tar" for name in ("short", "again"))
    assert one.read_bytes() == two.read_bytes()
    amalia_data(folder, "other", *SHORT, "seed=1")
    assert one.read_bytes() != (folder / "other" / "shard-000000.tar").read_bytes()


def test_a_sample_says_where_it_is_from(folder):
    with tarfile.open(folder / "short" / "shard-000000.tar") as tar:
        sample = json.load(tar.extractfile("pt_ocr-000000000.json"))
    assert sample["source"] == "pt_ocr" and sample["language"] == "pt-PT"
    assert sample["provenance"]["licence"] == "CC0-1.0" and "corpus.txt" in sample["provenance"]["source"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_amalia_train_takes_it(folder):
    launch(write_checkpoint, 1, {"folder": str(folder)})
    command = [sys.executable, "-m", "nemo_amalia.cli", "train", "stage=sft_demo", "parallel=single", "precision=fp32"]
    command += [f"model.checkpoint={folder}/checkpoint", f"data.path={folder}/short", f"run_dir={folder}/run"]
    command += ["stage.seq_length=4096", "stage.global_batch_size=1", "stage.train_steps=2", "data.num_workers=1"]
    command += ["logging.interval=1", "data.packing_buffer_size=8"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[2].startswith("[sft] step     2/2  loss ")
