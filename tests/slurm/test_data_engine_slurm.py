"""`amalia-data ... run executor=slurm` on a real Slurm: arrays that wait for each other, tasks that come back."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from counted_pipeline import CountingServer
from data_runs import PYTHONPATH, ROOT
from slurm_cluster import INSTALL, Cluster, missing

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=f"Slurm is not installed ({', '.join(missing())}): {INSTALL}"),
    pytest.mark.slow,
    pytest.mark.timeout(900),
]
RECORDS = 120


def amalia_data(cluster, folder, server, action, *more, check=True):
    words = ["base_text", action, "pipeline=counted_pipeline", f"+server='{server.url}'", f"limit={RECORDS}"]
    words += ["concurrency=2", "records_per_chunk=8", f"run_dir={folder}/run", f"out={folder}/out", *more]
    environment = cluster.environment | {"PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-m", "data_prep.cli", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def until(holds, seconds, what):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.5)


def said(cluster, folder):
    logs = sorted((folder / "run" / "datatrove").rglob("*.out"))
    ends = [f"--- {log.parent.parent.name}/{log.name}\n{log.read_text()[-1500:]}" for log in logs]
    return cluster.run("squeue", check=False) + "\n".join(ends) + cluster.logs()[-2000:]


def shards(folder):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tar"))]


def test_arrays_depend_on_each_other_and_a_killed_task_comes_back(tmp_path):
    slurm = ["executor=slurm", "executor.partition=acc", "executor.workers=2", "executor.mem_per_cpu_gb=1"]
    slurm += ["executor.time=00:20:00"]
    with Cluster(tmp_path / "cluster", nodes=2) as cluster, CountingServer(0.2) as server:
        text = amalia_data(cluster, tmp_path, server, "run", *slurm)
        jobs = json.loads((tmp_path / "run" / "slurm_jobs.json").read_text())["jobs"]
        assert len(jobs) == 3 and f"3 jobs submitted, each after the one before: {', '.join(jobs)}" in text
        assert cluster.job(jobs[2])["Dependency"].startswith(f"afterok:{jobs[1]}")
        again = amalia_data(cluster, tmp_path, server, "run", *slurm, check=False)
        assert "error: jobs " in again and f"{jobs[2]} of this run have not ended" in again

        until(lambda: server.calls.total() > 40, 240, lambda: said(cluster, tmp_path))
        status = amalia_data(cluster, tmp_path, server, "status", *slurm)
        assert f"/{RECORDS}" in status and "not finished" in status
        live = json.loads((tmp_path / "run" / "1-numbers" / "live" / "00001.json").read_text())
        os.kill(live["pid"], signal.SIGKILL)
        until(lambda: server.calls.total() > 100, 240, lambda: said(cluster, tmp_path))
        cluster.run("scancel", "--signal=USR1", f"{jobs[1]}_0")
        until(lambda: (tmp_path / "run" / "report.json").is_file(), 400, lambda: said(cluster, tmp_path))
        starts = {
            log.stem: log.read_text().count("Starting") for log in (tmp_path / "run" / "datatrove").rglob("*.out")
        }
        assert starts[f"{jobs[1]}_0"] == 2, "a signal before the end of its time: it comes back"
        assert starts[f"{jobs[1]}_1"] == 2 and starts[f"{jobs[2]}_0"] == 1, said(cluster, tmp_path)
        repeated = server.calls.total() - len(server.calls)
    assert repeated <= 8, "a task has 2 records under way, of 2 calls each"
    assert len(server.calls) == 2 * RECORDS
    with CountingServer(0) as server:
        here = amalia_data(cluster, tmp_path / "local", server, "run")
    assert "120 in = 108 out + 12 dropped (seven 12)" in here
    assert shards(tmp_path / "out") == shards(tmp_path / "local" / "out")
