"""Rotary tables of a whole pack at once, for layers without Transformer Engine's fused kernel.

Megatron-Core's unfused RoPE turns a pack segment by segment, a dozen small operations for each. It also takes a table
with one row for every token of the pack and turns them all together; nothing in GPTModel makes such a table. This does.
"""

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from torch import Tensor, nn


class PackRotaryEmbedding(nn.Module):
    """Stands before a RotaryEmbedding and gives, for a pack, angles [S, 1, 1, D] that restart with every segment."""

    def __init__(self, rows: RotaryEmbedding):
        super().__init__()
        self.rows = rows
        self._bounds: Tensor | None = None

    def get_rotary_seq_len(self, context, transformer, transformer_input, config, packed_seq_params=None, **kwargs):
        """The longest segment, as RotaryEmbedding says; the segments' bounds are kept for the call that follows."""
        p = packed_seq_params
        self._bounds = None if p is None else p.cu_seqlens_q if p.cu_seqlens_q_padded is None else p.cu_seqlens_q_padded
        return self.rows.get_rotary_seq_len(
            context, transformer, transformer_input, config, packed_seq_params, **kwargs
        )

    def forward(self, max_seq_len: int, offset: int = 0, packed_seq: bool = False, cp_group=None) -> Tensor:
        """Angles by position, or by token of the pack whose bounds get_rotary_seq_len saw."""
        angles = self.rows(max_seq_len, offset, packed_seq, cp_group)
        if not packed_seq or self._bounds is None:
            return angles
        starts, lengths = self._bounds[:-1].long(), self._bounds.diff().long()
        starts = starts.repeat_interleave(lengths)
        return angles.index_select(0, torch.arange(len(starts), device=angles.device) - starts)
