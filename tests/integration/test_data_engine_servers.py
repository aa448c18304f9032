"""`amalia-data ... run` while its model server is away: what is seen meanwhile, and that the shards are the same."""

import hashlib
import os
import re
import subprocess
import sys
import time

import pytest
from asking_pipeline import words_of
from data_runs import PYTHONPATH, ROOT
from model_double import ModelDouble

RECORDS = 40
RETRIED = r" +([\d,]+) retried \(refused ([\d,]+)\)"


def command(action, *words, stdout=subprocess.PIPE):
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    line = [sys.executable, "-m", "data_prep.cli", "base_text", action, *words]
    return subprocess.Popen(line, cwd=ROOT, env=environment, text=True, stdout=stdout, stderr=subprocess.STDOUT)


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
        log = tmp_path / "late.log"
        with log.open("w") as stdout:
            process = command("run", *late, "executor.workers=2", "progress_seconds=1", stdout=stdout)
        try:
            in_status = wait_for(r" 0/40 .*" + RETRIED, lambda: status(tmp_path / "late"), process, log)
            in_its_own_line = wait_for(r"0/40  0 out" + RETRIED, log.read_text, process, log)
            double.start()
            code = process.wait(timeout=120)
        finally:
            process.kill()
    for seen in (in_status, in_its_own_line):
        assert seen[1] == seen[2]
    text = log.read_text()
    assert code == 0, text
    assert re.search(rf" {RECORDS} calls,{RETRIED}, 0 cached, ", text), "and its report"
    assert shards(tmp_path / "late" / "out") == shards(tmp_path / "whole" / "out") != []


def wait_for(pattern, read, process, log):
    """The match of `pattern` in what `read` gives; the server stays away until then, so that nothing races."""
    deadline = time.monotonic() + 90
    while not (seen := re.search(pattern, read())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"no {pattern} in 90 s:\n{log.read_text()}"
        time.sleep(0.5)
    return seen


def status(folder):
    return said("status", f"run_dir={folder}/run") if (folder / "run" / "run.json").is_file() else ""
