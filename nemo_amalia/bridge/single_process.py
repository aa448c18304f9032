"""Megatron's process groups for one process: conversions need them, and run without torchrun."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from nemo_amalia.utils.errors import CheckpointError

# A saved config may come from any layout; these put it on one rank (megatron.bridge's load_megatron_model does so too).
ONE_RANK = {
    "tensor_model_parallel_size": 1,
    "pipeline_model_parallel_size": 1,
    "virtual_pipeline_model_parallel_size": None,
    "pipeline_model_parallel_layout": None,
    "num_layers_in_first_pipeline_stage": None,
    "num_layers_in_last_pipeline_stage": None,
    "account_for_embedding_in_pipeline_split": False,
    "account_for_loss_in_pipeline_split": False,
    "context_parallel_size": 1,
    "hierarchical_context_parallel_sizes": None,
    "expert_model_parallel_size": 1,
    "expert_tensor_parallel_size": 1,
    "sequence_parallel": False,
    "tp_comm_overlap": False,
    "overlap_p2p_comm": False,
    "fp8": None,
    "fp8_param": False,
    "delay_wgrad_compute": False,
    "perform_initialization": False,
    "use_cpu_initialization": True,
    # Nothing is computed here, and these may ask for kernels that this machine does not have.
    "apply_rope_fusion": False,
    "gradient_accumulation_fusion": False,
}


@contextlib.contextmanager
def single_process(provider) -> Iterator[dict]:
    """Makes ``provider`` a config for one rank, finalised, with process groups that last as long as the block.

    Gives the values that were replaced by name, for a config that is saved and must not say how it was converted.

    Raises CheckpointError inside a job that has initialised torch.distributed already.
    """
    import torch.distributed as dist
    from megatron.bridge.training.model_load_save import temporary_distributed_context
    from megatron.core.process_groups_config import ProcessGroupCollection

    if dist.is_initialized():
        raise CheckpointError("import and export run in one process of their own: start them outside of torchrun")
    before = {name: getattr(provider, name) for name in ONE_RANK if hasattr(provider, name)}
    for name in before:
        setattr(provider, name, ONE_RANK[name])
    with _outside_a_job(), temporary_distributed_context(backend="gloo"):
        provider.finalize()
        provider._pg_collection = ProcessGroupCollection.use_mpu_process_groups()
        yield before


@contextlib.contextmanager
def _outside_a_job() -> Iterator[None]:
    """Without MASTER_ADDR and MASTER_PORT: a shell inside an allocation may have them, for another job's store."""
    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK")
    saved = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)
