"""Async steps: bounded concurrency, usage, provenance, and models that give up."""

import asyncio
from dataclasses import dataclass

import pytest
from engine_runs import make, settings, source, turns

from data_prep.engine.flow import StepError
from data_prep.engine.folder import RunFolder
from data_prep.engine.model_access import ModelError
from data_prep.engine.outputs import provenance_of
from nemo_amalia.utils.errors import UserError


@dataclass
class Ask:
    role: str
    prompt: str
    number: int = 0


@dataclass
class Said:
    model: str = "gemma@4"
    tokens_in: int = 3
    tokens_out: int = 2
    cost: float = 0.5
    cached: bool = False


class Echo:
    """Answers after a moment. fails: numbers at which it gives up, and how often; reason: why."""

    def __init__(self, fails=None, reason="gave_up"):
        self.fails, self.reason = dict(fails or {}), reason
        self.now = self.most = self.asked = 0
        self.closed = False

    async def ask(self, request):
        self.now, self.asked = self.now + 1, self.asked + 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.002 * (1 + request.number % 3))
        self.now -= 1
        if self.fails.get(request.number, 0):
            self.fails[request.number] -= 1
            raise ModelError(f"no answer to {request.number}", self.reason)
        return Said(cached=request.number == 5)

    async def aclose(self):
        self.closed = True


async def ask(sample, run):
    sample["touched"] = sample.get("touched", 0) + 1  # a second try must not see this
    await run.models.ask(Ask("writer", "describe@12ab", sample["number"]))
    return sample


async def judge(sample, run):
    await run.models.ask(Ask("judge", "", sample["number"]))
    return sample


def split(sample, run):
    return [sample, sample | {"half": 2}]


def test_calls_at_once_are_bounded_and_counted(tmp_path):
    models = Echo()
    (ledger,), items = make(settings(tmp_path, records_per_chunk=100), [source(20), ask, split, judge, turns], models)
    assert models.most == 3, "conf.concurrency"
    assert [item["sample"]["number"] for item in items] == [i for i in range(20) for _ in range(2)]
    assert dict(ledger.usage) == {"calls": 57, "cached": 3, "tokens_in": 171, "tokens_out": 114, "cost": 28.5}
    assert models.closed
    assert items[0]["models"] == [["judge", "gemma@4"], ["writer", "gemma@4"]]


def test_provenance_names_models_prompts_seed_and_commit(tmp_path):
    _, items = make(settings(tmp_path), [source(1), ask, judge, turns], Echo())
    item = items[0]
    made = provenance_of(item["sample"], item["models"], item["prompts"], {"name": "t", "seed": 1}, "c0ffee")
    assert made == {
        "source": "here",
        "licence": "CC0-1.0",
        "models": {"judge": ["gemma@4"], "writer": ["gemma@4"]},
        "prompts": ["describe@12ab"],
        "pipeline": "t",
        "seed": 1,
        "commit": "c0ffee",
    }


def test_a_record_whose_model_failed_is_tried_again(tmp_path):
    models = Echo({2: 1})
    (ledger,), items = make(settings(tmp_path), [source(4), ask, turns], models)
    assert ledger.samples == 4 and models.asked == 5
    assert [item["sample"]["touched"] for item in items] == [1] * 4


def test_a_model_that_fails_again_drops_the_sample(tmp_path):
    (ledger,), _ = make(settings(tmp_path), [source(4), ask, turns], Echo({2: 9}))
    assert str(ledger.steps[0]) == "4 in = 3 out + 1 dropped (model_gave_up 1)"


def test_an_answer_that_never_fits_is_dropped_at_once(tmp_path):
    models = Echo({2: 9}, "schema")
    (ledger,), _ = make(settings(tmp_path), [source(4), ask, turns], models)
    assert ledger.dropped() == {"model_schema": 1} and models.asked == 4


def test_a_server_that_is_down_ends_the_run_and_drops_nothing(tmp_path):
    conf, parts = settings(tmp_path), [source(8), ask, turns]
    with pytest.raises(
        UserError, match="models gave up on 2 records of one chunk, .*: no answer to .*look at the serv"
    ):
        make(conf, parts, Echo({number: 9 for number in range(1, 8)}))
    (ledger,), _ = make(conf, parts, Echo())
    assert ledger.samples == 8 and not ledger.dropped()


def test_models_that_were_left_out_are_named_and_the_mended_command_goes_on(tmp_path):
    conf = settings(tmp_path)
    RunFolder(conf).begin(conf, "c0ffee")
    with pytest.raises(StepError, match=r"which model answers 'writer': add `- models: local` to the defaults"):
        make(conf, [source(2), ask, turns])
    named = settings(tmp_path, models={"roles": {"writer": {"model": "gemma", "version": "3f2a"}}})
    assert RunFolder(named).begin(named, "c0ffee")["settings"]["models.roles.writer.model"] == "gemma"
    other = settings(tmp_path, models={"roles": {"writer": {"model": "qwen", "version": "3f2a"}}})
    with pytest.raises(UserError, match=r"models.roles.writer.model=gemma, and now it is qwen"):
        RunFolder(other).begin(other, "c0ffee")
