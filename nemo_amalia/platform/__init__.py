"""Where the code runs. Only entry points import this package, before anything from ``megatron``.

``prepare()`` does next to nothing on a machine with a GPU (gpu.py); without one it activates
:mod:`nemo_amalia.platform.cpu`, so that Megatron's own loop, schedules, optimizer and checkpoints run on Gloo. Nothing
above knows which.
"""

import os

from nemo_amalia.utils.devices import has_gpu

# torch.compile (Megatron's jit_fuser) asks for the CUDA driver; TP needs one hardware queue a device.
CPU_ENVIRONMENT = {"TORCHDYNAMO_DISABLE": "1"}
COMMON_ENVIRONMENT = {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}


def environment(threads: int) -> dict[str, str]:
    """Environment variables for a rank process; ``threads`` is the OpenMP share of one rank."""
    cpu = {} if has_gpu() else {**CPU_ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}
    return {**COMMON_ENVIRONMENT, **cpu}


def prepare() -> str:
    """Make this process ready for Megatron. Returns the torch.distributed backend: ``nccl`` or ``gloo``.

    Call it once, before the first ``import megatron``; a second call is harmless.
    """
    for name, value in environment(threads=int(os.environ.get("OMP_NUM_THREADS", 1))).items():
        os.environ.setdefault(name, value)
    if has_gpu():
        from nemo_amalia.platform import gpu

        gpu.keep_compiled_helpers()
        return "nccl"
    from nemo_amalia.platform import cpu

    cpu.activate()
    return "gloo"
