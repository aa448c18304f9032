"""Precisions that cannot be, refused in one line each."""

import functools

import pytest

from nemo_amalia.config.compose import CONF, compose
from nemo_amalia.config.derived import row_multiple
from nemo_amalia.config.precision import RECIPES, fp8_format, fp8_scaling
from nemo_amalia.config.validation.precision import validate_precision
from nemo_amalia.utils.errors import UserError

PLACES = ["run_dir=runs/x", "model.checkpoint=ckpt", "data.path=data"]
FILES = sorted(path.stem for path in (CONF / "precision").glob("*.yaml"))


@functools.cache
def run_of(*words):
    return compose([*words, *PLACES])


@pytest.mark.parametrize("name", FILES)
def test_files_of_conf(name):
    cluster = "laptop" if name == "mxfp8" else "dgx_h100"
    run = run_of(f"precision={name}", f"cluster={cluster}")
    validate_precision(run)
    assert (fp8_scaling(run.precision) is None) == ("fp8" not in name)
    edges = (run.precision.first_layers_bf16, run.precision.last_layers_bf16)
    assert edges == ((1, 1) if "fp8" in name and name != "fp8_delayed" else (0, 0))


def test_every_recipe_has_a_file():
    assert {run_of(f"precision={name}").precision.recipe for name in FILES} == set(RECIPES)


@pytest.mark.parametrize(
    "words, said",
    [
        (["precision.recipe=fp16_mixed"], "choose one of fp32, bf16_mixed, bf16_with_fp8_delayed_scaling_mixed"),
        (
            ["precision=fp8_current", "precision.fp8_format=e5m2"],
            "precision.fp8_format is 'e5m2': choose one of hybrid",
        ),
        (["precision=fp8_delayed", "precision.first_layers_bf16=1"], "set it to 0, or take precision=fp8_current"),
        (["precision=bf16", "precision.fp8_format=e4m3"], "has no FP8: leave it out, or take precision=fp8_current"),
        (["precision=fp32", "precision.last_layers_bf16=1"], "precision.last_layers_bf16 is 1 and precision.recipe"),
        (["precision=bf16", "precision.fp8_parameters=true"], "precision.fp8_parameters is True"),
        (["precision=bf16", "precision.fp8_scaling=tensorwise"], "bf16_mixed has its own: leave it out"),
        (["precision=fp32", "precision.fp8_scaling=rowwise"], "choose one of delayed, tensorwise, blockwise, mxfp8"),
        (["precision=mxfp8", "cluster=dgx_h100"], "needs Blackwell (B100, B200, B300, GB200, GB300): take precision="),
        (["precision=fp8_current", "cluster=dgx_h100", "cluster.gpu=A100 SXM4 80GB"], "take precision=bf16"),
    ],
)
def test_what_cannot_be(words, said):
    with pytest.raises(UserError) as caught:
        validate_precision(run_of(*words))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_mxfp8_on_blackwell():
    validate_precision(run_of("precision=mxfp8", "cluster=dgx_h100", "cluster.gpu=B200 SXM 180GB"))


def test_fp8_on_top_of_fp32():
    run = run_of("precision=fp32", "precision.fp8_scaling=blockwise")
    validate_precision(run)
    assert (fp8_scaling(run.precision), fp8_format(run.precision)) == ("blockwise", "hybrid")


def test_what_rows_are_a_multiple_of():
    layout = ["parallel.tensor=4", "parallel.sequence=true", "parallel.context=2"]
    expected = {"bf16": 16, "fp8_current": 128, "fp8_delayed": 128, "mxfp8": 256, "fp8_blockwise": 1024}
    assert {name: row_multiple(run_of(f"precision={name}", *layout)) for name in expected} == expected
    assert row_multiple(run_of("precision=mxfp8", "parallel.overlap_tensor=true", *layout)) == 1024
    assert row_multiple(run_of("precision=fp8_current", "parallel.tensor=4")) == 16  # every rank sees all tokens
