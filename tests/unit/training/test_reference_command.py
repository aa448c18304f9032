"""What `amalia train` tells a user to run makes the file that it wants: it names what the file's fingerprint holds."""

import shlex

import pytest

from nemo_amalia.config.compose import compose
from nemo_amalia.training.reference_command import reference_command

PLACES = ["stage=dpo", "model.checkpoint=base", "data.path=pairs", "run_dir=runs/x"]


@pytest.mark.parametrize("precision", ["bf16", "fp32", "fp8_current", "fp8_blockwise", "mxfp8"])
@pytest.mark.parametrize("words", [[], ["stage.tiling=false", "data.max_image_pixels=4000"], ["parallel=gpus64_node8"]])
def test_the_command_composes_to_the_same_reference(precision, words):
    run = compose([*PLACES, f"precision={precision}", *words])
    command = shlex.split(reference_command(run))
    assert command[:2] == ["amalia", "reference"]
    said = [word for word in command[6:] if "=" in word]
    again = compose([*PLACES, *said])
    assert again.precision.recipe == run.precision.recipe
    assert again.stage.tiling == run.stage.tiling and again.data.max_image_pixels == run.data.max_image_pixels
    for name in ("tensor", "sequence", "pipeline", "context"):
        assert getattr(again.parallel, name) == getattr(run.parallel, name)


def test_a_file_elsewhere_is_named():
    run = compose([*PLACES, "stage.reference_file=there/r.parquet"])
    assert reference_command(run) == "amalia reference --checkpoint base --data pairs --out there/r.parquet"
