"""Calls that are sent again are seen while no record is done, are counted once, and stay counted."""

import asyncio
import re
import socket
from collections import Counter

import pytest
from asking_pipeline import ask, numbers
from engine_runs import settings
from model_double import ModelDouble, Reply
from omegaconf import OmegaConf

from data_prep.engine.finish import check_phase
from data_prep.engine.folder import RunFolder
from data_prep.engine.jobs import Make
from data_prep.engine.model_access import Retries
from data_prep.engine.progress import report_lines, status_lines
from data_prep.engine.pulse import Pulse
from data_prep.engine.records import plan_source
from data_prep.engine.run_state import Reader
from data_prep.engine.steps import phases_of
from data_prep.engine.task import Task
from data_prep.models.ask import Models
from data_prep.models.counters import Counters
from data_prep.models.routes import routes_from
from nemo_amalia.utils.errors import UserError

RECORDS = 6


def models(double, **server):
    server = {"url": double.url, "backoff": 0.05, "backoff_max": 0.1, **server}
    return Models(
        routes_from({"servers": {"s": server}, "roles": {"judge": {"server": "s", "model": "m", "version": "1"}}})
    )


class Run:
    """A planned run of `RECORDS` questions, one task."""

    def __init__(self, folder, **more):
        self.conf, self.phases = settings(folder, limit=RECORDS, **more), phases_of([numbers, ask])
        RunFolder(self.conf).begin(self.conf, "c0ffee")
        self.place = RunFolder(self.conf).phase(self.phases[0])
        plan_source(self.phases[0], self.place, self.conf)

    async def go(self, asked):
        await Task(self.conf, self.phases, 0, "c0ffee", Pulse(self.place, 0)).run(asked, 0, 1)

    def state(self):
        return Reader(self.conf, self.phases).states()[0]


def test_a_server_that_is_away_is_seen_before_any_record_is_done(tmp_path):
    run, double = Run(tmp_path), ModelDouble("de volta")
    double.start()
    double.stop()
    asked = models(double, retries=1000)

    async def watch():
        task = asyncio.create_task(run.go(asked))
        for _ in range(100):
            await asyncio.sleep(0.1)
            if run.state().ledger.retried:
                break
        seen = run.state()
        lines = status_lines(run.conf, run.phases)
        double.start()
        await task
        return seen, lines

    seen, lines = asyncio.run(watch())
    double.stop()
    away = seen.ledger.retried["refused"]
    assert away and not seen.ledger.records
    said = f"  {away:,} retried (refused {away:,})"
    assert said in str(seen) and said in "\n".join(lines)
    ledger = check_phase(run.phases[0], run.place, run.conf.records_per_chunk)
    assert ledger.retried == run.state().ledger.retried == asked.counters["judge"].retried, "each once"
    assert ledger.retried["refused"] >= away and ledger.records == RECORDS


def test_causes_are_told_apart_and_reported(tmp_path):
    trouble = {1: Reply(status=429), 2: Reply(status=503), 3: Reply(status=429), 5: Reply(reset=True)}
    run = Run(tmp_path)
    with ModelDouble(lambda body, number: trouble.get(number, "sete")) as double:
        asyncio.run(run.go(models(double)))
    assert "  4 retried (429 2, 503 1, reset 1)" in str(run.state())
    entry = {"name": "1", "barrier": None, "ledger": run.state().ledger.to_json()}
    shards = dict.fromkeys(("samples", "images", "shards", "bytes"), 0)
    assert "  6 calls, 4 retried (429 2, 503 1, reset 1), 0 cached, 60 tokens in" in "\n".join(
        report_lines({"phases": [entry], "shards": shards, "out": "x"})
    )


def test_what_a_server_asks_to_wait_is_seen_and_is_part_of_what_is_left(tmp_path):
    run, seen = Run(tmp_path, concurrency=1), []
    trouble = {4: Reply(status=429, headers={"Retry-After": "5"})}

    async def watch():
        task = asyncio.create_task(run.go(models(double)))
        while not task.done():
            if (state := run.state()).pauses:
                seen.append(state)
            await asyncio.sleep(0.2)
        await task

    with ModelDouble(lambda body, number: trouble.get(number, "sete")) as double:
        asyncio.run(watch())
    state = seen[0]
    assert 0 < seen[-1].pauses["s"] < state.pauses["s"] < 5 and list(state.pauses) == ["s"]
    said = r"  1 retried \(429 1\)  s asked to wait 0m0[0-4]s  [\d.]+/s  left 0m\d\ds$"
    assert re.search(said, str(state)), str(state)
    assert state.seconds_left() > state.pauses["s"]
    assert seen[-1].seconds_left() < state.seconds_left() - 1, "what was waited makes the rate no lower"
    assert not run.state().pauses and "wait" not in str(run.state())


def test_nothing_is_said_where_nothing_was_sent_again(tmp_path):
    run = Run(tmp_path)
    with ModelDouble("sete") as double:
        asyncio.run(run.go(models(double)))
    assert "retried" not in str(run.state())


def test_a_retry_is_under_way_until_it_is_taken_once():
    counters = Counters()
    asked = type("Client", (), {"counters": counters})()
    retries = Retries(asked)
    counters["judge"].retried["429"] += 2
    counters["writer"].retried["429"] += 1
    assert retries.under_way() == Counter({"429": 3}) == retries.take()
    counters["judge"].retried["refused"] += 1
    assert retries.take() == Counter({"refused": 1}) and not retries.take()
    assert not Retries(None).take() and not Retries(object()).take()


@pytest.mark.parametrize("executor", ["slurm", "local"])
def test_a_task_on_a_node_says_which_server_it_does_not_see(tmp_path, executor):
    """`local` was told by the command itself, on the same machine."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}/v1"
    roles = {"judge": {"server": "s", "model": "m", "version": "1"}}
    run = Run(
        tmp_path,
        pipeline="asking_pipeline",
        answers=str(tmp_path / "answers"),
        executor={"name": executor, "workers": 2},
        models={"servers": {"s": {"url": url, "retries": 0}}, "roles": roles},
    )
    for rank in (0, 1):
        with pytest.raises(UserError, match="models gave up"):
            list(Make(0, OmegaConf.to_container(run.conf), "c0ffee").run(rank=rank, world_size=2))
    said = [line for line in status_lines(run.conf, run.phases) if "no server at" in line]
    expected = f"    2 tasks (on {socket.gethostname()}) when they began: no server at {url} yet, which answers judge"
    assert len(said) == (executor == "slurm") and all(line.startswith(expected) for line in said)
