"""`amalia train` on what `amalia-data` wrote: pictures, text, two steps of the real loop."""

import json
import subprocess
import sys

import pytest
from counted_pipeline import CountingServer
from data_runs import ROOT, finish
from launcher import launch
from tiny_checkpoint import write_checkpoint


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_train_reads_what_a_pipeline_wrote(tmp_path):
    launch(write_checkpoint, 1, {"folder": str(tmp_path)})
    with CountingServer(0) as server:
        made = ["base_text", "run", "pipeline=counted_pipeline", f"+server='{server.url}'", "limit=40"]
        made += [f"run_dir={tmp_path}/made", f"out={tmp_path}/data"]
        said = finish([sys.executable, "-m", "data_prep.cli", *made], tmp_path / "log")
    assert "36 samples, 36 images, 1 shard" in said
    words = ["train", "stage=sft_demo", "parallel=single", "precision=fp32", f"model.checkpoint={tmp_path}/checkpoint"]
    words += [f"data.path={tmp_path}/data", f"run_dir={tmp_path}/run", "stage.seq_length=256", "stage.train_steps=2"]
    words += ["stage.global_batch_size=2", "data.num_workers=1", "logging.interval=1", "data.packing_buffer_size=8"]
    command = [sys.executable, "-m", "nemo_amalia.cli", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [one["step"] for one in metrics] == [1, 2]
    assert "dropped" not in done.stdout, "training takes every sample"
