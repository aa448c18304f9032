"""Windows of lengths -> packs: nothing lost, the fill that the issue asks for, and what it costs."""

import random
import time

import pytest

from nemo_amalia.data.packing.windows import WindowPacker
from nemo_amalia.utils.errors import UserError


def papers_lengths(number):
    """Mean near 4,297 tokens, up to 16,384 (as in test_packing.py)."""
    rng = random.Random(0)
    return [min(16384, max(50, int(rng.lognormvariate(8.1, 0.75)))) for _ in range(number)]


def packed(packer, lengths, shard=1000):
    packs = []
    for start in range(0, len(lengths), shard):
        packs += packer.add(lengths[start : start + shard])
    return packs, packs + packer.finish()


@pytest.mark.parametrize("algorithm", ["best_fit_decreasing", "balanced"])
@pytest.mark.parametrize("seed", range(12))
def test_every_sample_is_in_one_pack_and_every_pack_fits(seed, algorithm):
    rng = random.Random(seed)
    capacity, multiple = rng.choice([(64, 1), (1024, 4), (16384, 8)])
    longest = capacity // rng.choice([1, 3])
    lengths = [rng.randint(1, longest) for _ in range(rng.randint(1, 900))]
    packer = WindowPacker(capacity, multiple, rng.choice([1, 50, 300]), algorithm)
    _, packs = packed(packer, lengths, shard=rng.choice([1, 40, 250]))
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    for pack in packs:
        assert sum(-(-lengths[index] // multiple) * multiple for index in pack) <= capacity


def test_fill_and_time_on_lengths_like_the_papers():
    lengths = papers_lengths(40_000)
    begin = time.process_time()
    early, packs = packed(WindowPacker(16384), lengths)
    seconds = time.process_time() - begin
    assert sum(lengths) / (len(packs) * 16384) > 0.998
    assert len(early) > 0.9 * len(packs)  # given out on the way, not kept for the end
    # The bound of issue B is 3 microseconds a sample; three times that, for a machine that does other things, too.
    assert seconds / len(lengths) < 9e-6


def test_an_underfilled_pack_waits_for_what_fills_it():
    packer = WindowPacker(100, window=6)
    assert packer.add([60, 50, 50, 50, 50, 100]) == [[5], [1, 2], [3, 4]]
    assert packer.add([40, 100, 100, 100, 100, 100])[-1] == [0, 6]
    assert packer.finish() == []


def test_samples_that_fit_nothing_do_not_pile_up():
    packer = WindowPacker(100, window=100)
    for _ in range(50):
        packer.add([60] * 100)
    assert len(packer._lengths) < 50  # of 5,000


def test_samples_of_a_pack_lie_near_each_other():
    lengths = papers_lengths(40_000)
    _, packs = packed(WindowPacker(16384), lengths)
    apart = sorted(max(pack) - min(pack) for pack in packs)
    assert apart[len(apart) // 2] < 4000 and apart[int(len(apart) * 0.9)] < 8000


def test_an_empty_window_is_refused():
    with pytest.raises(UserError, match="a window of 0 samples packs nothing"):
        WindowPacker(100, window=0)
