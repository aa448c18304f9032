"""The most memory that this rank has had: of the GPU where there is one, else of the process."""

from __future__ import annotations

import resource

import torch

from nemo_amalia.utils.devices import has_gpu


def peak_bytes() -> int:
    """Since the process began. GPU: what torch's tensors took; CPU: resident pages, libraries included."""
    if has_gpu():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
