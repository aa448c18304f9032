"""Stage dpo at every layout: same weights, same pairs, steps of the real loop; every figure agrees with one rank's.

Tolerances as in test_layouts: 1e-5 relative for losses, log-probabilities and gradient norms. Rewards are beta times
differences of log-probabilities of some -60, whose last fp32 digit is 4e-6: they may differ by 2e-6 absolute, too. A
loss that every CP rank counts, or an all-reduce whose gradient is summed, moves the norm by a factor of 2.
"""

import math

import pytest
from dpo_cases import FIGURES, PACKS, PAIRS_A_PACK, STEPS
from launcher import launch
from tiny_checkpoint import write_checkpoint
from tiny_megatron import Layout

from nemo_amalia.utils.errors import UserError

ABSOLUTE = 2e-6
MPO = {"preference_loss_weight": 0.8, "quality_loss_weight": 0.2, "sft_loss_weight": 1.0}
LOST = {"packs": 4, "lost_pack": 3}
ONE_RANK = {
    "packed": {},
    "unpacked": {"packing": False, "batch": PACKS * PAIRS_A_PACK},
    "mpo": {"preference": MPO},
    "three packs": {"batch": 3, "stream": {"packs": 3}},
    "four, one lost": {"stream": LOST},
}
TWO_RANKS = {
    "TP2+SP": {"layout": Layout(tp=2, sp=True)},
    "DP2": {},
    "CP2": {"layout": Layout(cp=2)},
    "CP2 mpo": {"layout": Layout(cp=2), "preference": MPO},
    "DP2 lost": {"stream": LOST},
}


def train_each(checkpoint, folder, cases):
    from training_runs import dpo_config, train_fixed

    results = {}
    for name, options in cases.items():
        options = {"batch": PACKS, **options}
        stream = options.pop("stream", {})
        run = dpo_config(checkpoint, f"{folder}/{name.replace(' ', '_')}", steps=STEPS, **options)
        # Packs of one pair are packs too; FixedPairs reads packing=False as one pair each.
        results[name] = train_fixed(run, **stream)
    return results


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return launch(write_checkpoint, 1, {"folder": str(tmp_path_factory.mktemp("dpo"))})[0]


@pytest.fixture(scope="module")
def one(checkpoint, tmp_path_factory):
    arguments = {"checkpoint": checkpoint, "folder": str(tmp_path_factory.mktemp("one")), "cases": ONE_RANK}
    return launch(train_each, 1, arguments)[0]


@pytest.fixture(scope="module")
def two(checkpoint, tmp_path_factory):
    arguments = {"checkpoint": checkpoint, "folder": str(tmp_path_factory.mktemp("two")), "cases": TWO_RANKS}
    return launch(train_each, 2, arguments, timeout=300)[-1]


def agree(got, want):
    assert len(got) == len(want) == STEPS
    for ours, theirs in zip(got, want, strict=True):
        for name in FIGURES:
            close = pytest.approx(theirs[name], rel=1e-5, abs=0 if name in FIGURES[:7] else ABSOLUTE)
            assert ours[name] == close, f"step {ours['step']}: {name}"


def test_the_first_step_is_log_2_and_later_ones_learn(one):
    first, last = one["packed"][0], one["packed"][-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "kl", "truncated"):
        assert first[name] == 0.0, name
    assert last["rewards/margins"] > 0.01 and last["kl"] > 0 and last["loss"] < first["loss"]


def test_counts_are_of_pairs(one):
    assert all(step["samples"] == PACKS * PAIRS_A_PACK for step in one["packed"])


def test_norms_of_the_modules_make_up_the_norm(one):
    for step in one["packed"]:
        parts = [step[f"grad_norm/{name}"] for name in ("tower", "connector", "decoder")]
        assert math.hypot(*parts) == pytest.approx(step["grad_norm"], rel=1e-6) and min(parts) > 0


def test_unpacked_equals_packed(one):
    agree(one["unpacked"], one["packed"])


def test_a_pack_that_lost_its_pairs_weighs_nothing(one):
    assert all(step["samples"] == 3 * PAIRS_A_PACK for step in one["four, one lost"])
    agree(one["four, one lost"], one["three packs"])


@pytest.mark.parametrize("name", TWO_RANKS)
def test_two_ranks(name, two, one):
    same = {"CP2 mpo": "mpo", "DP2 lost": "three packs"}.get(name, "packed")
    agree(two[name], one[same])


def failures(checkpoint, folder):
    """What is said of pixels that are no numbers, and of conversations where pairs belong."""
    from training_runs import dpo_config, train_fixed

    said = []
    run = dpo_config(checkpoint, f"{folder}/nan", steps=STEPS, batch=PACKS)
    for options in ({"poison_step": PACKS + 1}, {"conversations": True}):
        try:
            train_fixed(run, **options)
        except UserError as error:
            said.append(str(error))
    return said


def test_what_cannot_be_trained_on_is_named(checkpoint, tmp_path):
    nan, conversations = launch(failures, 1, {"checkpoint": checkpoint, "folder": str(tmp_path)})[0]
    assert "at step 2; its micro-batch holds the pairs pair/000008, pair/000009:" in nan and "\n" not in nan
    assert "needs preference pairs" in conversations and "fixed/000000" in conversations
