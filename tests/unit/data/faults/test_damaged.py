"""Every kind of damage among good samples, through real shards: the damaged are named, nothing else is lost."""

import io
import json
import shutil

import pytest
from chatml import picture
from damage import damaged, text, unnoticed

from benchmarks.damaged_images import write_raw
from nemo_amalia.data.faults.board import COLUMNS, QUARANTINED
from nemo_amalia.data.faults.quarantine import write_faults

DAMAGED = damaged()
GOOD = [f"good-{i:03d}" for i in range(40)]


def mixed(folder):
    """Damaged, unnoticed and good samples in turn, 25 a shard."""
    odd = {name: (content, images) for name, (_, content, images) in DAMAGED.items()} | unnoticed()
    good = {key: (text(), [("jpg", picture(30 + i, 60 - i, i))]) for i, key in enumerate(GOOD)}
    samples, odd = {}, list(odd.items())
    for index, (key, sample) in enumerate(good.items()):
        samples[key] = sample
        if index % 2:
            samples |= dict([odd.pop()] if odd else [])
    assert not odd
    return write_raw(folder, samples)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mixed(tmp_path_factory.mktemp("damaged") / "web")


def bare(keys):
    return sorted(key.rpartition("/")[2] for key in keys)


def keys(loader):
    return bare(key for batch in loader for key in batch.keys)


@pytest.mark.parametrize("settings", [{}, {"packing": False, "micro_batch_size": 2}])
def test_the_damaged_are_named_and_nothing_else_is_lost(load, folder, settings):
    loader = load(num_workers=2, on_bad_sample="drop", repeat=False, **settings)
    out = keys(loader)
    assert out == sorted([*GOOD, *unnoticed()])  # each once
    faults = loader.faults
    assert {bare([fault.key])[0]: fault.reason for fault in faults.log()} == {
        name: reason for name, (reason, _, _) in DAMAGED.items()
    }
    assert all(bare([fault.key])[0] in fault.message for fault in faults.log())  # the message names its sample
    (source,) = faults.by_source()
    assert source == str(folder) and {fault.source for fault in faults.log()} == {source}
    counts = faults.by_source()[source]
    assert counts["samples_in"] == len(out) + len(DAMAGED) == sum(counts[name] for name in COLUMNS[1:])
    shards = {(source, fault.shard): 0 for fault in faults.log()}
    for fault in faults.log():
        shards[source, fault.shard] += 1
    assert faults.by_shard() == shards and len(shards) > 1


def test_the_list_of_one_run_leaves_them_out_of_the_next(load, folder, tmp_path):
    first = load(on_bad_sample="drop", repeat=False)
    out, listed = keys(first), io.StringIO()
    write_faults(listed, first.faults.log())
    (tmp_path / "0.jsonl").write_text(listed.getvalue())
    assert {json.loads(line)["key"] for line in listed.getvalue().splitlines()} == set(DAMAGED)
    moved = shutil.copytree(folder, tmp_path / "elsewhere")  # another path, the same index
    second = load(moved, num_workers=2, repeat=False, quarantine=str(tmp_path))  # and nothing may be dropped now
    assert keys(second) == out
    assert second.faults.dropped() == {QUARANTINED: len(DAMAGED)} and second.faults.log() == []


def test_sources_of_a_blend_are_counted_apart(load, folder, tmp_path):
    other = write_raw(tmp_path / "azulejos", {f"a-{i}": (text(), [("jpg", picture(40, 40, i))]) for i in range(30)})
    loader = load([(folder, 1), (other, 1)], num_workers=2, on_bad_sample="drop")
    out = [key for _ in range(12) for key in next(loader).keys]
    loader.close()  # what the workers had begun is in a buffer, or lost with them
    sources = loader.faults.by_source()
    assert set(sources) == {str(folder), str(other)}
    clean, web = sources[str(other)], sources[str(folder)]
    assert clean["samples_in"] >= clean["samples_out"] >= sum("/a-" in key for key in out) > 0
    assert sum(clean[name] for name in COLUMNS[2:]) == 0 < sum(web[name] for name in COLUMNS[2:])
