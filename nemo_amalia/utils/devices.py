"""Which devices this machine has: asked here and nowhere else."""

from __future__ import annotations

import os


def has_gpu() -> bool:
    """Return whether a CUDA device can be used; where none can, the CPU platform pins torch's answer to False."""
    import torch

    return torch.cuda.is_available()


def gpu_count() -> int:
    """GPUs that the driver lists and CUDA_VISIBLE_DEVICES leaves, without loading torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return sum(1 for name in os.listdir("/dev") if name.startswith("nvidia") and name[6:].isdigit())
