"""Barriers: what is chosen goes on, several become one, the rest is dropped by name."""

import json

import pytest
from engine_runs import make, settings, source, turns

from data_prep.engine import Barrier
from data_prep.engine.folder import RunFolder
from data_prep.engine.steps import phases_of
from nemo_amalia.utils.errors import UserError


def backwards(samples, run):
    return [position for position in reversed(range(len(samples))) if samples[position]["number"] != 3]


def pairs(samples, run):
    return [[i, i + 1] for i in range(0, len(samples) - 1, 2)]


def join(sample, run):
    return turns({"number": [one["number"] for one in sample["samples"]]}, run)


def test_what_is_not_chosen_is_dropped_by_name(tmp_path):
    conf = settings(tmp_path)
    parts = [source(6), Barrier(backwards, reason="third", fields=("number",)), turns]
    ledgers, items = make(conf, parts, tasks=2)
    assert [item["sample"]["number"] for item in items] == [5, 4, 2, 1, 0]
    place = RunFolder(conf).phase(phases_of(parts)[1])
    counts = place.read_plan()["ledger"]
    assert counts["steps"] == [["backwards", 6, 5, 0, 0, {"third": 1}]]
    assert json.loads(place.dropped.read_text()) == {
        "key": "t-000000003",
        "step": "backwards",
        "reason": "third",
        "note": "",
    }
    assert [ledger.records for ledger in ledgers] == [6, 5]


def test_several_become_one(tmp_path):
    conf = settings(tmp_path)
    parts = [source(5), Barrier(pairs), join]
    _, items = make(conf, parts)
    assert [item["sample"]["number"] for item in items] == [[0, 1], [2, 3]]
    assert items[0]["sample"]["key"] == "t-000000000" and items[0]["sample"]["source"] == "here"
    steps = RunFolder(conf).phase(phases_of(parts)[1]).read_plan()["ledger"]["steps"]
    assert steps == [["pairs", 5, 2, 0, 2, {"not_chosen": 1}]]


@pytest.mark.parametrize("choice", [[], [[]], [-1], [9]])
def test_choices_that_are_none(tmp_path, choice):
    with pytest.raises(UserError, match="barrier <lambda> chose .* of 3 samples: expected positions"):
        make(settings(tmp_path), [source(3), Barrier(lambda samples, run: choice), turns])
