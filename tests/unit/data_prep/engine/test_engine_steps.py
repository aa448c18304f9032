"""What steps may return, how samples are counted, named, seeded, and what a step's mistake says."""

from functools import partial

import pytest
from engine_runs import make, settings, source, turns

from data_prep.engine import Barrier, Drop
from data_prep.engine.flow import StepError
from data_prep.engine.steps import phases_of
from nemo_amalia.utils.errors import UserError


def odd_only(sample, run):
    if sample["number"] % 2 == 0:
        raise Drop("even")
    return sample


def twice(sample, run):
    return [{"number": sample["number"] * 10}, {"number": sample["number"] * 10 + 1}]


def test_every_sample_is_counted(tmp_path):
    (ledger,), items = make(settings(tmp_path), [source(10), odd_only, twice, turns])
    assert [str(step) for step in ledger.steps] == [
        "10 in = 5 out + 5 dropped (even 5)",
        "5 in + 5 added = 10 out + 0 dropped",
        "10 in = 10 out + 0 dropped",
    ]
    assert (ledger.records, ledger.samples) == (10, 10)
    assert [item["sample"]["number"] for item in items] == [10, 11, 30, 31, 50, 51, 70, 71, 90, 91]


def test_keys_come_from_the_record_and_children_are_numbered(tmp_path):
    _, items = make(settings(tmp_path), [source(2), twice, turns])
    assert [item["sample"]["key"] for item in items] == [
        "t-000000000-0",
        "t-000000000-1",
        "t-000000001-0",
        "t-000000001-1",
    ]
    assert all(item["sample"]["licence"] == "CC0-1.0" for item in items), "children inherit source and licence"


def draw(sample, run):
    return sample | {"drawn": run.rng.random()}


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_random_numbers_depend_on_seed_and_sample_alone(tmp_path, chunk):
    parts = [source(6), draw, turns]
    _, first = make(settings(tmp_path / "a", records_per_chunk=2), parts)
    _, other = make(settings(tmp_path / "b", records_per_chunk=chunk), parts, tasks=2)
    _, seeded = make(settings(tmp_path / "c", seed=2), parts)
    assert first == other
    drawn = [item["sample"]["drawn"] for item in first]
    assert len(set(drawn)) == 6 and drawn != [item["sample"]["drawn"] for item in seeded]


def test_the_same_step_twice_is_counted_apart(tmp_path):
    (ledger,), _ = make(settings(tmp_path), [source(3), draw, draw, turns])
    assert [step.name for step in ledger.steps] == ["draw", "draw_2", "turns"]


def test_bytes_come_back_as_they_were(tmp_path):
    def blobs(sample, run):
        return sample | {"a": {"b": [b"\x00\xff", (b"two", 3)]}}

    _, items = make(settings(tmp_path), [source(1), blobs, turns])
    assert items[0]["sample"]["a"] == {"b": [b"\x00\xff", [b"two", 3]]}


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ([], "step mistaken of sample t-000000000 returned an empty list: .* raise Drop"),
        (None, "returned NoneType"),
        ([{}, 3], "returned list"),
    ],
)
def test_nothing_ends_without_a_name(tmp_path, result, text):
    def mistaken(sample, run):
        return result

    with pytest.raises(StepError, match=text):
        make(settings(tmp_path), [source(1), mistaken, turns])


def test_a_step_that_breaks_is_named_and_the_run_goes_on_after_mending(tmp_path):
    calls = []

    def divide(sample, run, by=0):
        calls.append(sample["number"])
        return sample | {"x": 1 / (sample["number"] - 6 if by == 0 else 1)}

    conf = settings(tmp_path)
    with pytest.raises(StepError, match=r"step divide of sample t-000000006 broke \(ZeroDivisionError: .*\): mend it"):
        make(conf, [source(10), divide, turns])
    (ledger,), _ = make(conf, [source(10), partial(divide, by=1), turns])
    assert ledger.samples == 10
    assert calls == [*range(7), *range(6, 10)], "what was done is not done again"


def test_samples_must_be_what_training_reads(tmp_path):
    def no_messages(sample, run):
        return sample

    def placeholder(sample, run):
        return turns(sample, run) | {"messages": [{"role": "user", "content": "<image>"}]}

    def no_image(sample, run):
        return placeholder(sample, run) | {"images": [b"text"]}

    def bad_key(sample, run):
        return turns(sample, run) | {"key": "a.b"}

    def strange(sample, run):
        return turns(sample, run) | {"value": {1, 2}}

    for step, text in (
        (no_messages, "ends the pipeline without messages"),
        (placeholder, "1 image placeholders and 0 images"),
        (no_image, "image 0 of sample t-000000000: .* are no image"),
        (bad_key, "may hold only letters"),
        (strange, "sample t-000000000 after strange: .*set.*plain JSON values and bytes"),
    ):
        with pytest.raises(UserError, match=text):
            make(settings(tmp_path / step.__name__), [source(1), step])


def test_records_say_where_they_are_from(tmp_path):
    with pytest.raises(UserError, match="record 0 of records has no licence: each record says"):
        make(settings(tmp_path), [source(1, licence=""), turns])
    with pytest.raises(UserError, match="records gave no records"):
        make(settings(tmp_path / "b"), [source(0), turns])


def test_a_list_that_is_no_pipeline():
    with pytest.raises(UserError, match="begins with its source"):
        phases_of([Barrier(lambda samples, run: [0])])
    with pytest.raises(UserError, match="7 in a pipeline is not a step"):
        phases_of([source(1), 7])
    with pytest.raises(UserError, match="drop reason 'not good' is not a valid name"):
        Drop("not good")
