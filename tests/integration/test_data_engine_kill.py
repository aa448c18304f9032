"""Kill -9 of `amalia-data ... run` at several moments, for real: nothing lost, nothing twice, few calls repeated."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from counted_pipeline import CountingServer
from data_runs import finish, start
from stream_settings import PIXELS

from nemo_amalia.data.shards.totals import scan

RECORDS, CALLS = 400, 800
DROPPED = RECORDS // 10


def command(folder: Path, name: str, server: CountingServer, workers: int, *more: str) -> list[str]:
    words = ["base_text", "run", "pipeline=counted_pipeline", f"+server='{server.url}'", f"limit={RECORDS}", "seed=3"]
    words += [f"run_dir={folder}/{name}", f"out={folder}/{name}-out", f"executor.workers={workers}", "concurrency=4"]
    words += ["records_per_chunk=16", "samples_per_shard=100", *more]
    return [sys.executable, "-m", "data_prep.cli", *words]


def until(server: CountingServer, calls: int, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while server.calls.total() < calls:
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, f"{server.calls.total()} calls in 120 s"
        time.sleep(0.005)


def shards(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tar"))}


def keys(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [name.removesuffix(".json") for name in tar.getnames() if name.endswith(".json")]
    return found


@pytest.mark.timeout(900)
def test_kill_nine_loses_nothing_and_repeats_little(tmp_path):
    with CountingServer() as server:
        said = finish(command(tmp_path, "whole", server, workers=1), tmp_path / "whole.log")
        assert server.calls.total() == CALLS, "an undisturbed run asks everything once"
        assert (
            f"ask_twice                {RECORDS} in = {RECORDS - DROPPED} out + {DROPPED} dropped (seven {DROPPED})"
            in said
        )
    assert not scan(tmp_path / "whole-out", max_image_pixels=PIXELS).refused, "training takes every sample"
    expected = shards(tmp_path / "whole-out")
    assert len(expected) == 4

    with CountingServer() as server:
        words, log = command(tmp_path, "killed", server, workers=2), tmp_path / "killed.log"
        repeated = []
        for moment in (100, 300, 500):  # with all its workers; then the parent alone, whose workers end by themselves
            process = start(words, log)
            until(server, moment, process, log)
            if moment == 500:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.2)
            repeated.append(server.calls.total() - len(server.calls))
        run_id = json.loads((tmp_path / "killed" / "run.json").read_text())["id"]
        stale = tmp_path / f".killed-out.run-{run_id}"  # as a kill while shards are written leaves it
        stale.mkdir()
        (stale / "shard-000000.tar").touch()
        said = finish(words, log)
        repeated.append(server.calls.total() - len(server.calls))
        assert not stale.exists()
        (tmp_path / "killed" / "report.json").unlink()  # as a kill between shards and report does
        assert finish(words, log).endswith(said.splitlines()[-1] + "\n")
        assert server.calls.total() - len(server.calls) == repeated[-1]
    print("calls repeated after each start:", repeated)
    assert shards(tmp_path / "killed-out") == expected
    found = keys(tmp_path / "killed-out")
    assert len(found) == len(set(found)) == RECORDS - DROPPED
    dropped = [json.loads(line) for line in (tmp_path / "killed" / "dropped.jsonl").read_text().splitlines()]
    assert [one["note"] for one in dropped] == [str(number) for number in range(7, RECORDS, 10)]
    steps = [b - a for a, b in zip([0, *repeated], repeated, strict=False)]
    assert max(steps) <= 0.02 * CALLS, f"calls repeated: {repeated}"  # 2 workers x 4 records x 2 calls are under way
    assert said.rstrip().endswith(f"-> {tmp_path}/killed-out")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_worker_ends_the_run_in_one_line(tmp_path, end):
    """Not once the other worker is done: each needs 200 s here."""
    with CountingServer(4.0) as server:
        words, log = command(tmp_path, "run", server, workers=2), tmp_path / "log"
        process = start(words, log)
        until(server, 16, process, log)
        live = json.loads((tmp_path / "run" / "1-numbers" / "live" / "00001.json").read_text())
        os.kill(live["pid"], end)
        assert process.wait(30) == 2, log.read_text()[-3000:]
        last = log.read_text().splitlines()[-1]
    assert f"error: worker process {live['pid']} was killed" in last and "the same command again" in last
