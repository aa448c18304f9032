"""`amalia-data ... run` while its model server is away: what is seen meanwhile, and that the shards are the same."""

import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asking_pipeline import words_of
from model_double import ModelDouble

ROOT = Path(__file__).resolve().parents[2]
RECORDS = 40


def command(action, *words):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    line = [sys.executable, "-m", "data_prep.cli", "base_text", action, *words]
    return subprocess.Popen(
        line, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def said(action, *words):
    process = command(action, *words)
    text = process.communicate(timeout=120)[0]
    assert process.returncode == 0, text
    return text


def shards(folder):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tar"))]


@pytest.mark.timeout(300)
def test_a_run_whose_server_comes_late_says_what_it_waits_for(tmp_path):
    with ModelDouble(lambda body, number: body["messages"][0]["content"][::-1]) as double:
        run = [*words_of(double.url, tmp_path / "whole", RECORDS), "records_per_chunk=8"]
        assert "retried" not in said("run", *run)
        double.stop()
        late = words_of(double.url, tmp_path / "late", RECORDS, retries=1000, backoff=0.05, backoff_max=0.2)
        late += ["records_per_chunk=8"]
        process = command("run", *late, "executor.workers=2", "progress_seconds=1")
        deadline = time.monotonic() + 90
        while not (seen := re.search(r" 0/40 .*  (\d+) retried \(refused (\d+)\)", status(tmp_path / "late"))):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "no retries seen in 90 s"
            time.sleep(0.5)
        assert seen[1] == seen[2]
        double.start()
        text = process.communicate(timeout=120)[0]
    assert process.returncode == 0, text
    assert re.search(r"0/40  0 out  [\d,]+ retried \(refused [\d,]+\)", text), "the line of the run itself, meanwhile"
    assert re.search(rf"  {RECORDS} calls, [\d,]+ retried \(refused [\d,]+\), 0 cached, ", text), "and its report"
    assert shards(tmp_path / "late" / "out") == shards(tmp_path / "whole" / "out") != []


def status(folder):
    return said("status", f"run_dir={folder}/run") if (folder / "run" / "run.json").is_file() else ""
