"""Bridge's own loop in bf16 and in emulated FP8: the recipes of conf/precision train, and FP8 moves the loss a little.

Each is compared with the precision below it: bf16, or fp32. Bounds: seen at worst over five steps, 1.2e-2 of the loss
and 0.10 of the gradient norm, of a model of random weights in which nothing averages the rounding out; twice that is
allowed. A gradient with a scale that is off by two doubles or halves the norm; equal losses would be no FP8 at all.
"""

import pytest
from launcher import launch
from tiny_checkpoint import write_checkpoint

CASES = {"bf16": ("bf16", {}), "fp32": ("fp32", {}), "current": ("fp8_current", {}), "blockwise": ("fp8_blockwise", {})}
CASES |= {
    "every layer": ("fp8_current", {"first_layers_bf16": 0, "last_layers_bf16": 0}),
    "on fp32": ("fp32", {"fp8_scaling": "tensorwise"}),
}
PLACES = ["run_dir=x", "model.checkpoint=x", "data.path=x"]


def train_each(checkpoint, folder, cases):
    from training_runs import run_config, train_fixed

    from nemo_amalia.config.compose import compose
    from nemo_amalia.config.validation.precision import validate_precision

    found = {}
    for name, (precision, fields) in cases.items():
        run = run_config(checkpoint, f"{folder}/{name}", steps=5)
        run.precision = compose([f"precision={precision}", *PLACES]).precision
        for field, value in fields.items():
            setattr(run.precision, field, value)
        validate_precision(run)
        found[name] = [(m["loss"], m["grad_norm"]) for m in train_fixed(run)]
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("fp8"))
    [checkpoint] = launch(write_checkpoint, 1, {"folder": folder})
    return launch(train_each, 1, {"checkpoint": checkpoint, "folder": folder, "cases": CASES}, timeout=400)[0]


def test_bf16_learns(trained):
    losses = [loss for loss, _ in trained["bf16"]]
    assert len(losses) == 5 and losses[-1] < losses[0]


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("bf16", "fp32")])
def test_fp8_moves_the_loss_a_little(trained, name):
    below = trained["fp32" if name == "on fp32" else "bf16"]
    for (loss, norm), (plain, plain_norm) in zip(trained[name], below, strict=True):
        assert 1e-7 < abs(loss / plain - 1) < 2.5e-2
        assert abs(norm / plain_norm - 1) < 0.2


def test_first_and_last_layers_are_left_out(trained):
    assert trained["current"] != trained["every layer"]
