"""FP8 on Transformer Engine against bf16 on the same GPU: the last five of 30 losses within 1 % (the issue's bound).

The recipes are conf/precision's own, with what they leave in bf16. Delayed scaling has every layer in FP8.
"""

import pytest
from gpu_compare import final_loss
from gpu_ranks import start

STEPS, WITHIN = 30, 0.01
RECIPES = {"fp8_current": "tensorwise", "fp8_blockwise": "blockwise", "fp8_delayed": "delayed"}
CASES = [
    pytest.param(name, id=name, marks=pytest.mark.gpu(fp8=scaling)) for name, scaling in RECIPES.items()
]  # fmt: skip


def losses(checkpoint, folder, precision, layout=None, ranks=1):
    """A launch of its own: Transformer Engine keeps FP8 state for the whole process."""
    case = {precision: {"precision": precision, "steps": STEPS, "layout": layout}}
    arguments = {"checkpoint": checkpoint, "folder": str(folder), "cases": case}
    return start("gpu_model.py", "train", ranks, arguments)[-1]["runs"][precision]


@pytest.fixture(scope="module")
def bf16(checkpoint, tmp_path_factory):
    return losses(checkpoint, tmp_path_factory.mktemp("bf16"), "bf16")


def near(found, bf16):
    assert len(found) == len(bf16) == STEPS
    assert found != bf16, "the run computed in bf16"
    assert final_loss(found) == pytest.approx(final_loss(bf16), rel=WITHIN)


@pytest.mark.parametrize("precision", CASES)
def test_fp8_learns_as_bf16_does(precision, checkpoint, bf16, tmp_path):
    assert final_loss(bf16) < bf16[0][0] - 0.1
    near(losses(checkpoint, tmp_path, precision), bf16)


@pytest.mark.gpu(gpus=2, fp8="tensorwise")
def test_fp8_on_two_tensor_parallel_gpus(checkpoint, bf16, tmp_path):
    near(losses(checkpoint, tmp_path, "fp8_current", {"tp": 2, "sp": True}, ranks=2), bf16)
