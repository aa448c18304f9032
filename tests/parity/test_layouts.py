"""Same weights, same data, 10 optimiser steps of the real loop: losses and gradient norms agree at every layout.

Tolerance 1e-5 relative: fp32 has 6e-8; sums of about 10^4 terms in another order move the last two or three digits,
and ten AdamW steps with rates of 1e-3 carry that on. A layout error (a gradient counted twice or not at all, a mask
off by one) shows at 1e-2 or more from the second step.
"""

import pytest
from launcher import launch
from tiny_checkpoint import write_checkpoint
from tiny_megatron import Layout

TOLERANCE = 1e-5
SAMPLES_A_PACK = 3
ONE_RANK = {"TP1": {}, "TP1 unpacked": {"packing": False, "batch": 4 * SAMPLES_A_PACK}}
TWO_RANKS = {
    "TP2": {"layout": Layout(tp=2)},
    "TP2+SP": {"layout": Layout(tp=2, sp=True)},
    "TP2+SP tower replicated": {"layout": Layout(tp=2, sp=True), "tower_data_parallel": False},
    "TP2 tower replicated": {"layout": Layout(tp=2), "tower_data_parallel": False},
    "PP2": {"layout": Layout(pp=2)},
    "PP2 interleaved": {"layout": Layout(pp=2, vpp=2)},
    "PP2 uneven": {"layout": Layout(pp=2, first=1)},
    "DP2": {},
    "DP2 overlapped": {"layout": Layout(overlap=True)},
    "TP2+SP recomputed": {"layout": Layout(tp=2, sp=True, recompute="full")},
    "CP2": {"layout": Layout(cp=2)},
}
FOUR_RANKS = {
    "TP2xPP2+SP": {"layout": Layout(tp=2, pp=2, sp=True)},
    "TP2+SP x DP2": {"layout": Layout(tp=2, sp=True)},
    "TP2xCP2+SP": {"layout": Layout(tp=2, cp=2, sp=True)},
}


def train_each(checkpoint, folder, cases):
    from training_runs import run_config, train_fixed

    results = {}
    for name, options in cases.items():
        run = run_config(checkpoint, f"{folder}/{name.replace(' ', '_')}", **options)
        results[name] = [(m["loss"], m["grad_norm"]) for m in train_fixed(run)]
    return results


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return launch(write_checkpoint, 1, {"folder": str(tmp_path_factory.mktemp("layouts"))})[0]


@pytest.fixture(scope="module")
def reference(checkpoint, tmp_path_factory):
    """One rank, packed: what every other layout must equal."""
    folder = str(tmp_path_factory.mktemp("one"))
    return launch(train_each, 1, {"checkpoint": checkpoint, "folder": folder, "cases": ONE_RANK})[0]


def agree(got, want):
    assert len(got) == len(want) == 10
    for step, (ours, theirs) in enumerate(zip(got, want, strict=True), start=1):
        assert ours == pytest.approx(theirs, rel=TOLERANCE), f"step {step}: (loss, gradient norm) {ours} != {theirs}"


def test_the_reference_learns(reference):
    losses = [loss for loss, _ in reference["TP1"]]
    assert losses[-1] < losses[0] - 0.1 and len(set(losses)) == 10


def test_unpacked_equals_packed(reference):
    agree(reference["TP1 unpacked"], reference["TP1"])


@pytest.fixture(scope="module")
def two_ranks(checkpoint, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("two"))
    arguments = {"checkpoint": checkpoint, "folder": folder, "cases": TWO_RANKS}
    return launch(train_each, 2, arguments, timeout=400)[-1]


@pytest.mark.parametrize("name", TWO_RANKS)
def test_two_ranks(name, two_ranks, reference):
    agree(two_ranks[name], reference["TP1"])


@pytest.fixture(scope="module")
def four_ranks(checkpoint, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("four"))
    arguments = {"checkpoint": checkpoint, "folder": folder, "cases": FOUR_RANKS}
    return launch(train_each, 4, arguments, timeout=600)[-1]


@pytest.mark.parametrize("name", FOUR_RANKS)
def test_four_ranks(name, four_ranks, reference):
    agree(four_ranks[name], reference["TP1"])
