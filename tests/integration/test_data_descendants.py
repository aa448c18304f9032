"""Nothing that `amalia-data ... run` started is alive a few seconds after a kill -9, of whichever of its processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from counted_pipeline import CountingServer
from data_runs import PYTHONPATH, ROOT

SECONDS = 8


def alive(session):
    """{pid: (parent, command)} of a session's processes, without those that have ended and are only not waited for."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                command = (folder / "cmdline").read_text().replace("\0", " ")
                found[int(folder.name)] = int(parent), command
        except OSError:  # it ended meanwhile
            continue
    return found


def kinds(process):
    """{manager, server, workers: pids} of a run with a pool."""
    running = alive(process.pid)
    children = {pid: command for pid, (parent, command) in running.items() if parent == process.pid}
    server = [pid for pid, command in children.items() if "forkserver" in command]
    manager = [pid for pid, command in children.items() if "-m data_prep.cli" in command]
    workers = [pid for pid, (parent, _) in running.items() if parent in server]
    return {"parent": [process.pid], "manager": manager, "server": server, "workers": workers}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("victims", "records", "workers"),
    [
        ("parent", 64, 2),  # both workers ask their server
        ("parent", 16, 2),  # one has nothing to do
        ("parent", 64, 1),  # no pool
        ("workers", 64, 2),
        ("server", 64, 2),
    ],
)
def test_nothing_outlives_a_kill(tmp_path, victims, records, workers):
    with CountingServer(1.0) as server:
        words = ["base_text", "run", "pipeline=counted_pipeline", f"+server='{server.url}'", f"limit={records}"]
        words += [f"run_dir={tmp_path}/run", f"out={tmp_path}/out", f"executor.workers={workers}", "concurrency=4"]
        process = subprocess.Popen(
            [sys.executable, "-m", "data_prep.cli", *words, "records_per_chunk=16"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": PYTHONPATH},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while server.calls.total() < 10:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        found = kinds(process)
        assert len(found["manager"]) == 1 and len(found["workers"]) == (workers if workers > 1 else 0), found
        for pid in found[victims]:
            os.kill(pid, signal.SIGKILL)
        try:
            assert process.wait(30) == (-signal.SIGKILL if victims == "parent" else 2)
            deadline = time.monotonic() + SECONDS
            while left := alive(process.pid):
                assert time.monotonic() < deadline, f"alive {SECONDS} s after the kill of {victims}: {left}"
                time.sleep(0.1)
        finally:
            for pid in alive(process.pid):
                os.kill(pid, signal.SIGKILL)
