"""Samples of packs that would go out half empty wait in Energon's buffer: nothing is lost, and a state has them."""

import pytest
from chatml import conversation

from nemo_amalia.data.packing import algorithms as packing
from nemo_amalia.data.shards.write import write_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    samples = (conversation(i, images=0, words=4 + i * 7 % 23) for i in range(160))
    return write_shards(samples, tmp_path_factory.mktemp("waiting") / "data", 40).folder


SETTINGS = {"seq_length": 768, "packing_buffer_size": 20, "repeat": False, "checkpoint_every_seconds": 0}


def keys(batches):
    return [batch.keys for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_packs_are_fuller_and_every_sample_comes_once(load, monkeypatch, workers):
    patient = list(load(num_workers=workers, **SETTINGS))
    monkeypatch.setattr(packing, "MOST_WAIT", 0)  # as Energon has it: every buffer ends in a pack of what is left
    hasty = list(load(num_workers=workers, **SETTINGS))
    every = [sorted(key for batch in batches for key in batch.keys) for batches in (patient, hasty)]
    assert every[0] == every[1] and len(set(every[0])) == len(every[0]) == 160
    assert sum(batch.num_tokens for batch in patient) == sum(batch.num_tokens for batch in hasty)
    assert len(patient) < 0.97 * len(hasty)


@pytest.mark.parametrize("algorithm", packing.ALGORITHMS)
def test_what_waits_is_in_the_state(load, algorithm):
    settings = SETTINGS | {"packing_algorithm": algorithm}
    whole = keys(load(**settings))
    for taken in (5, 11):
        loader = load(**settings)
        assert keys(next(loader) for _ in range(taken)) == whole[:taken]
        resumed = load(**settings)
        resumed.restore(loader.state())
        assert keys(resumed) == whole[taken:]
