"""What `status` reads from a run's files: done, dropped, rate, tasks that failed or fell silent."""

import asyncio
import io
import os
import socket
import subprocess
import time

import pytest
from engine_runs import make, settings, source, turns

from data_prep.engine import Drop
from data_prep.engine.folder import RunFolder, write_json
from data_prep.engine.ledger import Ledger
from data_prep.engine.progress import Progress, status_lines
from data_prep.engine.pulse import Pulse
from data_prep.engine.run_state import Reader
from data_prep.engine.steps import phases_of
from data_prep.engine.task import Task


def seventh(sample, run):
    if sample["number"] == 7:
        raise Drop("seventh")
    return sample


def live_of(place, task, records, seconds, ago=0.0, **more):
    ledger = Ledger.of(["seventh", "turns"])
    ledger.records = ledger.samples = records
    now = time.time() - ago
    content = {"task": task, "host": "n1", "state": "running", "error": "", "started": now - seconds, "updated": now}
    write_json(place.live(task), content | {"records": records, "open": {"1": ledger.to_json()}} | more)


@pytest.fixture
def half_done(tmp_path):
    conf, parts = settings(tmp_path, records_per_chunk=8), [source(20), seventh, turns]
    RunFolder(conf).begin(conf, "c0ffee00c0ffee")
    make(conf, parts, tasks=3, only=[0], finish=False)
    phases = phases_of(parts)
    place = RunFolder(conf).phase(phases[0])
    place.live(0).unlink()
    return conf, phases, place


def test_what_is_sealed_and_what_is_under_way_add_up(half_done):
    conf, phases, place = half_done
    live_of(place, 1, records=2, seconds=4)
    (state,) = Reader(conf, phases).states()
    assert (state.ledger.records, state.ledger.samples, state.running) == (10, 9, 1)
    assert state.rate == pytest.approx(0.5, rel=0.01) and state.seconds_left() == pytest.approx(20, rel=0.01)
    assert "##########.......... 10/20  9 out  1 dropped (seventh 1)  0.5/s  left 0m" in str(state)
    lines = status_lines(conf, phases)
    assert "begun at commit c0ffee00c0ff, seed 1" in lines[0] and lines[-1] == "not finished"


def test_tasks_that_failed_or_fell_silent_are_named(half_done):
    conf, phases, place = half_done
    live_of(place, 1, records=2, seconds=4, ago=60)
    live_of(place, 2, records=0, seconds=4, state="failed", error="ValueError: disco cheio", open={})
    text = "\n".join(status_lines(conf, phases))
    assert "task 2 on n1 failed: ValueError: disco cheio" in text
    assert "1 tasks were killed, or say nothing for 30 s" in text and "/s" not in text


def test_a_finished_phase_forgets_old_tasks(half_done):
    conf, phases, place = half_done
    live_of(place, 9, records=2, seconds=4, ago=60)
    for rank in (1, 2):
        asyncio.run(Task(conf, phases, 0, "c", Pulse(place, rank)).run(None, rank, 3))
    (state,) = Reader(conf, phases).states()
    assert (state.ledger.records, state.silent) == (20, 0)


def test_a_phase_that_waits(tmp_path):
    conf = settings(tmp_path)
    RunFolder(conf).begin(conf, "c")
    assert [str(state) for state in Reader(conf, phases_of([source(1), turns])).states()] == [f"{'1-records':24} waits"]


def test_what_is_said_at_the_end_stands_below_the_bar(half_done, monkeypatch):
    conf, phases, _ = half_done
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    with Progress(conf, phases, lambda text: screen.write(f"{text}\n")) as progress:
        progress.stop()
        progress._say("checking all counts")
    assert screen.getvalue().count("8/20") == 1 and screen.getvalue().endswith("checking all counts\n")


def test_a_task_that_was_killed_on_this_machine_is_seen_at_once(half_done):
    conf, phases, place = half_done
    gone = subprocess.Popen(["true"])
    gone.wait()
    live_of(place, 1, records=2, seconds=4, host=socket.gethostname(), pid=gone.pid)
    live_of(place, 2, records=2, seconds=4, host=socket.gethostname(), pid=os.getpid())
    (state,) = Reader(conf, phases).states()
    assert (state.silent, state.running) == (1, 1)
