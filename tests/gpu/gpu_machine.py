"""What this machine can run of tests/gpu, asked once in a process of its own: pytest itself never opens a GPU."""

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass

# Everything of these tests but Transformer Engine, NCCL and DALI's GPU decoder, on the CPU platform: it checks the
# tests' own code, and says nothing about a GPU.
REHEARSAL = os.environ.get("GPU_TESTS_REHEARSE", "") not in ("", "0")
REHEARSAL_RANKS = 2

PROBE = """
import json, torch
found = {"gpus": torch.cuda.device_count(), "capability": [0, 0], "engine": None}
if found["gpus"]:
    found["capability"] = list(torch.cuda.get_device_capability())
    try:
        import transformer_engine.pytorch
        import transformer_engine
        found["engine"] = transformer_engine.__version__
    except Exception as error:
        found["why"] = f"{type(error).__name__}: {error}".splitlines()[0]
print("\\n" + json.dumps(found))
"""


@dataclass(frozen=True)
class Machine:
    """gpus: visible ones. capability: CUDA's, of the first. engine: Transformer Engine's version; why: it has none."""

    gpus: int = 0
    capability: tuple[int, int] = (0, 0)
    engine: str | None = None
    why: str = ""


@functools.cache
def machine() -> Machine:
    """This one. Raises CalledProcessError where torch cannot be imported."""
    from gpu_ranks import environment

    done = subprocess.run([sys.executable, "-c", PROBE], env=environment("gpu"), capture_output=True, text=True)
    done.check_returncode()
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Machine(**{**found, "capability": tuple(found["capability"])})


def reason_to_skip(
    seen: Machine, gpus: int = 1, fp8: str | None = None, cuda_only: bool = False, rehearsal: bool = False
) -> str | None:
    """Why a test that needs so much is not run here; None where it is.

    fp8: Megatron's name of the recipe. cuda_only: nothing of it can be rehearsed.
    """
    if rehearsal:
        if cuda_only or fp8 == "delayed":
            return "the rehearsal on a CPU has neither NVIDIA's decoder nor delayed scaling"
        return f"needs {gpus} ranks, a rehearsal has {REHEARSAL_RANKS}" if gpus > REHEARSAL_RANKS else None
    if seen.gpus < gpus:
        return f"needs {gpus} GPU{'s' if gpus > 1 else ''}, {seen.gpus} visible"
    if seen.engine is None:
        return f"needs Transformer Engine, which cannot be imported ({seen.why})"
    # Transformer Engine: per-tensor scales on Ada and newer, blocks on Hopper and newer.
    least = {None: (0, 0), "blockwise": (9, 0)}.get(fp8, (8, 9))
    if seen.capability < least:
        need, has = (f"{major}.{minor}" for major, minor in (least, seen.capability))
        return f"FP8 {fp8} needs compute capability {need}, this GPU has {has}"
    return None
