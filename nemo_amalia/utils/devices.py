"""Which devices this machine has: asked here and nowhere else."""

from __future__ import annotations


def has_gpu() -> bool:
    """Return whether a CUDA device can be used; where none can, the CPU platform pins torch's answer to False."""
    import torch

    return torch.cuda.is_available()
