"""What of tests/gpu and benchmarks/gpu_step.py can be wrong without a GPU: skips, commands, tolerances, the table."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from launcher import launch

from nemo_amalia.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "gpu"))

import gpu_compare  # noqa: E402
import gpu_ranks  # noqa: E402
from gpu_machine import Machine, reason_to_skip  # noqa: E402

HOPPER = Machine(1, (9, 0), "2.8.0")


@pytest.mark.parametrize(
    ("seen", "needs", "reason"),
    [
        (Machine(), {}, "needs 1 GPU, 0 visible"),
        (HOPPER, {}, None),
        (HOPPER, {"gpus": 8}, "needs 8 GPUs, 1 visible"),
        (HOPPER, {"fp8": "blockwise"}, None),
        (Machine(8, (8, 0), "2.8.0"), {"gpus": 8}, None),
        (Machine(1, (8, 0), "2.8.0"), {"fp8": "tensorwise"}, "FP8 tensorwise needs compute capability 8.9"),
        (Machine(1, (8, 9), "2.8.0"), {"fp8": "tensorwise"}, None),
        (Machine(1, (8, 9), "2.8.0"), {"fp8": "blockwise"}, "FP8 blockwise needs compute capability 9.0"),
        (Machine(1, (9, 0), None, "ImportError: no"), {}, "needs Transformer Engine.*ImportError: no"),
        (Machine(), {"rehearsal": True}, None),
        (Machine(), {"rehearsal": True, "gpus": 8}, "needs 8 ranks"),
        (Machine(), {"rehearsal": True, "fp8": "delayed"}, "delayed"),
        (Machine(), {"rehearsal": True, "cuda_only": True}, "decoder"),
    ],
)
def test_reasons_to_skip(seen, needs, reason):
    import re

    found = reason_to_skip(seen, **needs)
    assert found is None if reason is None else re.search(reason, found), found


def test_every_gpu_test_is_skipped_by_name_without_one():
    """pytest itself, on this machine with its GPUs hidden: nothing passes, nothing fails, each says why."""
    environment = {k: v for k, v in os.environ.items() if k != "GPU_TESTS_REHEARSE"} | {"CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-m", "pytest", "-v", "-rs", "-m", "gpu", "tests/gpu"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" not in done.stdout and "20 skipped" in done.stdout, done.stdout
    for reason in ("needs 1 GPU, 0 visible", "needs 2 GPUs, 0 visible", "needs 8 GPUs, 0 visible"):
        assert reason in done.stdout


def test_the_ranks_of_a_gpu_test_are_torchruns(tmp_path):
    words = gpu_ranks.command(8, "gpu_model.py", "train", tmp_path)
    assert words[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=8"]
    assert all(Path(word).is_file() for word in words[5:7]) and words[7:] == ["train", str(tmp_path)]


def test_the_environment_of_a_rank(monkeypatch):
    """A rank on a GPU sees what pytest was started with, whatever tests/helpers/launcher.py did since."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    monkeypatch.setattr(gpu_ranks, "VISIBLE", "2,3")
    gpu, cpu = gpu_ranks.environment("gpu"), gpu_ranks.environment("cpu")
    assert gpu["CUDA_VISIBLE_DEVICES"] == "2,3" and "TORCHDYNAMO_DISABLE" not in gpu and "OMP_NUM_THREADS" not in gpu
    assert cpu["CUDA_VISIBLE_DEVICES"] == "" and cpu["TORCHDYNAMO_DISABLE"] == "1"
    assert "NCCL_ALGO" not in gpu and gpu_ranks.environment("gpu", deterministic=True)["NCCL_ALGO"] == "Ring"
    monkeypatch.setattr(gpu_ranks, "VISIBLE", None)
    assert "CUDA_VISIBLE_DEVICES" not in gpu_ranks.environment("gpu")


def test_tolerances():
    fp32 = [(4.0 - step / 10, 2.0) for step in range(10)]
    near = [(loss * 1.003, norm * 0.99) for loss, norm in fp32]
    assert gpu_compare.distance(near, fp32) == pytest.approx((0.003, 0.01))
    assert gpu_compare.allowed(near, fp32) == pytest.approx((0.006, 0.02))
    assert gpu_compare.allowed(fp32, fp32) == (2**-9, 2**-9)
    assert gpu_compare.final_loss(fp32) == pytest.approx(3.3)


def test_the_table_of_fabricated_runs(tmp_path):
    """Two rounds of six steps; the four that warm up are a hundred times slower and must not count."""
    from benchmarks import gpu_step

    rounds = []
    for number, seconds in enumerate([[2.0, 2.2], [4.0, 4.4]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        steps = [{"seconds": 200.0, "tokens": 1}] * gpu_step.WARM_UP + [{"seconds": s, "tokens": 840} for s in seconds]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
        rounds.append(gpu_step.steps_of(folder))
    found = gpu_step.measured(rounds, flops=630.0, gpus=2, peak=1000.0)
    assert (found.seconds, found.tokens, found.mfu) == pytest.approx((3.15, 840 / 3.15 / 2, 0.1))
    text = gpu_step.report({"bf16": (found, gpu_step.Figures(2.1, 200.0, 0.15))})
    assert text.splitlines()[1].split() == ["bf16", "3.150", "133", "10.0%", "2.100", "200", "15.0%", "1.50"]
    (tmp_path / "0" / "metrics.jsonl").write_text('{"seconds": 1, "tokens": 1}\n')
    with pytest.raises(UserError, match="raise --steps"):
        gpu_step.steps_of(tmp_path / "0")


def arguments(**changes):
    values = dict(tensor=1, cluster="dgx_h100", steps=14, seq_length=16384)
    return argparse.Namespace(**{**values, **changes})


def test_the_runs_of_the_benchmark_are_accepted(tmp_path):
    from benchmarks import gpu_packs, gpu_step
    from nemo_amalia.config.compose import compose
    from nemo_amalia.config.validation.layout import validate_layout
    from nemo_amalia.config.validation.precision import validate_precision

    folder = gpu_packs.write_architecture(tmp_path / "slice", 4)
    for tensor, gpus in ((1, 1), (1, 8), (2, 8)):
        for precision in gpu_step.PRECISIONS:
            words = gpu_step.words_of(arguments(tensor=tensor), precision, folder, tmp_path / "run")
            run = compose(words)
            validate_precision(run)
            validate_layout(run, gpus)
            started = gpu_step.command(gpus, words)
            assert started[4:7] == [f"--nproc-per-node={gpus}", "-m", "benchmarks.gpu_slice"]


def test_the_plan_of_the_slice(tmp_path):
    """A few layers and the same tower: on a card of 80 GB, less work than the whole model, and more than a tenth."""
    from benchmarks import gpu_packs, gpu_step

    flops = {}
    for layers in (gpu_step.LAYERS, None):
        folder = gpu_packs.write_architecture(tmp_path / str(layers), layers)
        words = gpu_step.words_of(arguments(), "bf16", folder, tmp_path / "run")
        figures, flops[layers], gib = gpu_step.planned(words, 1)
        assert figures.mfu == pytest.approx(flops[layers] / figures.seconds / 989.4e12)
        assert layers is None or gib < 79
    assert flops[None] / 10.5 < flops[gpu_step.LAYERS] < flops[None] / 2


def test_the_packs_of_the_benchmark():
    """By the trainer's own geometry: full, mostly images, as many as the batch has."""
    from benchmarks import gpu_packs
    from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to

    geometry = ImageGeometry(384, 16, tuple(grids_up_to(12, 384)))
    packs = gpu_packs.pack_lengths(16384)
    assert len(packs) == gpu_packs.PACKS and all(15000 < sum(pack) <= 16384 for pack in packs)
    drawn = [gpu_packs.pack_samples(pack, geometry, 3, 0.85) for pack in packs]
    samples = [sample for pack in drawn for sample, _ in pack]
    share = sum(int((s.input_ids == 3).sum()) for s in samples) / sum(len(s.input_ids) for s in samples)
    assert 0.6 < share <= 0.85
    for pack in drawn:
        for sample, tiles in pack:
            counted = sum(geometry.num_tokens(*size, True) for size in sample.image_sizes)
            assert counted == int((sample.input_ids == 3).sum())
            assert [len(t) for t in tiles] == [geometry.num_tiles(*size, True) for size in sample.image_sizes]


def helpers(folder):
    """In a rank, where Megatron is loaded: with a Makefile beside the compiled module, and without."""
    from megatron.core.datasets import utils

    from nemo_amalia.platform import gpu

    plain = utils.compile_helpers
    utils.__file__ = f"{folder}/utils.py"
    Path(folder, "helpers_cpp.so").touch()
    Path(folder, "Makefile").touch()
    with_makefile = gpu.keep_compiled_helpers() or utils.compile_helpers is not plain
    Path(folder, "Makefile").unlink()
    return with_makefile, gpu.keep_compiled_helpers() and utils.compile_helpers() is None


def test_compiled_helpers_are_kept(tmp_path):
    """The wheel has no Makefile: Bridge's run-time compile would end every run on a GPU."""
    assert launch(helpers, 1, {"folder": str(tmp_path)}) == [(False, True)]
