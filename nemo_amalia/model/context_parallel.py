"""Megatron's zigzag order: which tokens of a row, or of a segment of a pack, a context-parallel rank holds.

A run of L tokens is cut in 2*CP equal chunks; rank r holds chunk r and chunk 2*CP-1-r, so that every rank has
the same amount of causal work (megatron.core.utils.get_batch_on_this_cp_rank; Transformer Engine's
thd_get_partitioned_indices does it segment by segment).
"""

import torch
from torch import Tensor

from nemo_amalia.utils.errors import ConfigError


def zigzag_positions(local_length: int, rank: int, size: int) -> Tensor:
    """Positions within a run of ``local_length * size`` tokens that ``rank`` holds, in its order. [local_length].

    Raises ConfigError when the run does not cut into 2*CP chunks.
    """
    if local_length % 2:
        raise ConfigError(
            f"a run of {local_length * size} tokens does not cut into {2 * size} chunks for context parallelism: "
            f"pad every segment to a multiple of {2 * size}"
        )
    chunk = local_length // 2
    last = 2 * size - 1 - rank
    return torch.cat([torch.arange(rank * chunk, (rank + 1) * chunk), torch.arange(last * chunk, (last + 1) * chunk)])


def pack_indices(cu_seqlens: list[int], rank: int, size: int) -> Tensor:
    """Indices into a pack of the tokens that ``rank`` of ``size`` holds, segment by segment. [S / size]."""
    runs = [
        start + zigzag_positions((end - start) // size, rank, size)
        for start, end in zip(cu_seqlens, cu_seqlens[1:], strict=False)
    ]
    return torch.cat(runs)
