"""What the fused kernels of a GPU keep for the backward, for fake tensors.

The layers of model/torch_backend.py are right on a CPU and keep more than Transformer Engine's: torch's RMSNorm is
computed in fp32 piece by piece, attention keeps a copy for every segment, and under context parallelism a mask. A dry
run counts bytes, so within ``fused_kernels()`` these functions take the same shapes and keep what Transformer Engine's
keep. Read off its source (transformer_engine/pytorch 2.x: module/layernorm_linear.py, attention/dot_product_attention,
attention/rope.py), not measured on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from nemo_amalia.utils.errors import ConfigError


class _Norm(torch.autograd.Function):
    """Keeps its input, the weight, and one number a token."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.has_bias = bias is not None
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight) if ctx.has_bias else None


class _Attention(torch.autograd.Function):
    """Keeps query, key, value, its output, and the softmax's sum of every token and head."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(query.shape)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor):
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class _Turn(torch.autograd.Function):
    """RoPE: keeps the angles alone, which all layers share."""

    @staticmethod
    def forward(ctx, x: Tensor, angles: Tensor) -> Tensor:
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return torch.empty_like(gradient), None


class _Fp8Linear(torch.autograd.Function):
    """Keeps its part of the input in FP8, for the weight's gradient, and the weight."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, parts: int) -> Tensor:
        kept = [x.new_empty(x.shape, dtype=torch.float8_e4m3fn)] if ctx.needs_input_grad[1] else []
        ctx.parts, ctx.shape = parts, x.shape
        ctx.save_for_backward(weight, *kept)
        return x.new_empty(x.shape[0] * parts, *x.shape[1:-1], weight.shape[0])

    @staticmethod
    def backward(ctx, gradient: Tensor):
        weight = ctx.saved_tensors[0]
        return gradient.new_empty(ctx.shape), torch.empty_like(weight) if ctx.needs_input_grad[1] else None, None


def _linear(self, input, weight, bias=None, allreduce_dgrad=False, sequence_parallel=False, tp_group=None, **_):
    """Fp8Emulation's linear by shapes."""
    if input.shape[-1] != weight.shape[1]:
        raise ConfigError(f"a linear of {weight.shape[1]} inputs got {list(input.shape)}")
    output = _Fp8Linear.apply(input, weight, tp_group.size() if sequence_parallel else 1)
    return output if bias is None else output + bias


def _normalise(x: Tensor, weight: Tensor, bias: Tensor | None, config, eps: float) -> Tensor:
    if weight.shape != x.shape[-1:]:
        raise ConfigError(f"a norm of {weight.shape[0]} values got hidden states of {list(x.shape)}")
    return _Norm.apply(x, weight, bias)


def _attend(self, query, key, value, attention_mask=None, attn_mask_type=None, attention_bias=None,
            packed_seq_params=None) -> Tensor:  # fmt: skip
    """TorchDotProductAttention.forward by shapes, and Transformer Engine's demands on a pack."""
    heads, groups = query.shape[-2], key.shape[-2]
    if heads % groups:
        raise ConfigError(f"{heads} query heads of this rank do not divide over {groups} key-value heads")
    if value.untyped_storage() is not query.untyped_storage():
        value = value.contiguous()  # Transformer Engine copies what it finds in no layout that it knows
    if packed_seq_params is None:
        return _Attention.apply(query, key, value).flatten(2)
    bounds = packed_seq_params.cu_seqlens_q
    if int(bounds[-1]) != query.shape[0] * self.cp_size:
        raise ConfigError(f"cu_seqlens end at {int(bounds[-1])} and {self.cp_size} CP ranks hold {query.shape[0]} each")
    if self.cp_size > 1 and int((bounds.diff() % (2 * self.cp_size)).sum()):
        raise ConfigError(f"a segment of the pack does not cut into 2 x CP = {2 * self.cp_size} chunks")
    return _Attention.apply(query, key, value).flatten(1)


def _turn(t: Tensor, freqs: Tensor, *_, **__) -> Tensor:
    return _Turn.apply(t, freqs)


def _over_tensors(operation, overflow: Tensor, tensors, *_) -> tuple[Tensor, None]:
    """Norm, or scaling in place, of many tensors in one kernel: without one Megatron reads every number on the host."""
    return torch.zeros(1, dtype=torch.float32), None


@contextlib.contextmanager
def fused_kernels() -> Iterator[None]:
    """Within: norms, attention and RoPE of the CPU's layers keep what a GPU's would. Give them fake tensors alone."""
    import megatron.core.optimizer.clip_grads as core_clip
    import megatron.core.transformer.attention as core_attention

    from nemo_amalia.model import fp8_emulation, torch_backend

    places = (
        (core_clip, "multi_tensor_applier", _over_tensors),
        (torch_backend, "_normalise", _normalise),
        (torch_backend.TorchDotProductAttention, "forward", _attend),
        (fp8_emulation.Fp8Emulation, "_forward_impl", _linear),
        (core_attention, "apply_rotary_pos_emb", _turn),
    )
    before = [getattr(owner, name) for owner, name, _ in places]
    for owner, name, stand_in in places:
        setattr(owner, name, stand_in)
    try:
        yield
    finally:
        for (owner, name, _), was in zip(places, before, strict=True):
            setattr(owner, name, was)
