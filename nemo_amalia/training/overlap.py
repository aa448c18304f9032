"""Which communication hides behind computation, as Megatron Bridge's CommOverlapConfig."""

from __future__ import annotations

from megatron.bridge.training.comm_overlap import CommOverlapConfig
from megatron.core.extensions.transformer_engine import HAVE_TE

from nemo_amalia.config.schema import RunConfig


def comm_overlap(run: RunConfig) -> CommOverlapConfig | None:
    """None where nothing overlaps.

    Bridge adds what follows: gradient buckets of 128 Mi elements, and parameter gathers that all chunks of a virtual
    pipeline start together. It has no tuned table for a width of 4,096, so Transformer Engine's defaults choose how
    each linear overlaps. Without Transformer Engine, whose linears they are, tensor overlap stays off: Bridge would ask
    the same, of the stand-in that it imports on a CPU.
    """
    p = run.parallel
    if not (p.overlap_grad_reduce or p.overlap_param_gather or p.overlap_tensor):
        return None
    return CommOverlapConfig(
        tp_comm_overlap=p.overlap_tensor and HAVE_TE,
        overlap_grad_reduce=p.overlap_grad_reduce,
        overlap_param_gather=p.overlap_param_gather,
    )
