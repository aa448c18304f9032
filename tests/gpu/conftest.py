"""Which of these tests run here, and what all of them start from: a checkpoint that the CPU platform wrote.

``@pytest.mark.gpu(gpus=2, fp8="blockwise", cuda_only=True)``: what a test needs; alone, one GPU.
"""

import subprocess
import sys

import gpu_model
import gpu_ranks
import pytest
from gpu_machine import REHEARSAL, Machine, machine, reason_to_skip


def pytest_runtest_setup(item):
    marker = item.get_closest_marker("gpu")
    if marker is None:
        return
    reason = reason_to_skip(Machine() if REHEARSAL else machine(), **marker.kwargs, rehearsal=REHEARSAL)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def hf_folder(tmp_path_factory):
    """transformers' model: bf16 weights, so that bf16 and fp32 compute with the same numbers."""
    return str(gpu_model.write_hf(tmp_path_factory.mktemp("gpu_hf") / "model"))


@pytest.fixture(scope="session")
def checkpoint(hf_folder, tmp_path_factory):
    """The Megatron checkpoint of it, by `amalia import` in a process without GPUs: layers of TorchSpecProvider."""
    out = tmp_path_factory.mktemp("gpu_checkpoint") / "checkpoint"
    words = [sys.executable, "-m", "nemo_amalia.cli", "import", "--hf", hf_folder, "--out", str(out)]
    done = subprocess.run(words, env=gpu_ranks.environment("cpu"), cwd=gpu_ranks.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(out)
