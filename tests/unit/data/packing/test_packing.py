import random

import pytest

from nemo_amalia.config import schema
from nemo_amalia.data.packing.algorithms import ALGORITHMS, balanced, best_fit_decreasing, fill, padded_length, shuffled
from nemo_amalia.utils.errors import UserError


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_lost_nothing_is_doubled_and_the_capacity_is_kept(seed, algorithm):
    rng = random.Random(seed)
    capacity = rng.choice([7, 64, 16384])
    lengths = [rng.randint(1, capacity) for _ in range(rng.randint(0, 400))]
    packs = shuffled(ALGORITHMS[algorithm](lengths, capacity), seed)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in pack) <= capacity for pack in packs)
    if algorithm == "best_fit_decreasing":  # two packs that are both at most half full would have been one
        assert sum(sum(lengths[i] for i in pack) * 2 <= capacity for pack in packs) <= 1


def test_the_fill_of_the_papers_packs():
    # Lengths like the paper's give 99.5 % with a buffer of 500; the same kind of lengths must not fall under 98 %.
    rng = random.Random(0)
    lengths = [min(16384, max(50, int(rng.lognormvariate(8.1, 0.75)))) for _ in range(500)]
    assert fill(best_fit_decreasing(lengths, 16384), lengths, 16384) > 0.98
    assert fill([], [], 16384) == 0.0


def test_the_order_depends_on_the_seed_alone():
    packs = best_fit_decreasing([5, 4, 3, 2, 1] * 20, 8)
    assert shuffled(packs, "a") == shuffled(packs, "a") != shuffled(packs, "b")


def variance_between(packs, lengths):
    """Share of the lengths' variance that lies between packs, 0 to 1."""
    mean = sum(lengths) / len(lengths)
    of_pack = [sum(lengths[i] for i in pack) / len(pack) for pack in packs]
    between = sum(len(pack) * (x - mean) ** 2 for pack, x in zip(packs, of_pack, strict=True))
    return between / sum((length - mean) ** 2 for length in lengths)


def test_balanced_packs_hold_every_length():
    rng = random.Random(0)
    lengths = [rng.randint(60, 320) for _ in range(500)]
    sorted_packs, mixed = best_fit_decreasing(lengths, 4096), balanced(lengths, 4096)
    assert variance_between(sorted_packs, lengths) > 0.7
    assert variance_between(mixed, lengths) < 0.02
    loads = [sum(lengths[i] for i in pack) for pack in mixed]
    assert max(loads) - min(loads) <= 320  # the longest sample: what greedy filling guarantees
    assert len(mixed) <= len(sorted_packs) + 1
    assert balanced([], 8) == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("length", [0, 9])
def test_lengths_that_fit_no_pack_are_named(length, algorithm):
    with pytest.raises(UserError, match=f"item 1 has length {length} and a pack holds 1 to 8"):
        ALGORITHMS[algorithm]([3, length], 8)


def test_the_schema_knows_every_algorithm():
    assert tuple(ALGORITHMS) == schema.PACKING_ALGORITHMS


def test_padded_length():
    assert [padded_length(n, 4) for n in (1, 4, 5)] == [4, 4, 8]
