"""TorchSpecProvider: Megatron-Core's layers in plain torch, with Transformer Engine's parameter names.

Megatron-Core's local modules refuse sequence parallelism and packed (THD) sequences, and name their norms
otherwise than Transformer Engine's fused layers; a checkpoint of theirs would not load on a GPU. These do all
three, exactly, and support context parallelism by gathering keys and values.

Shape legend: S tokens of this rank, B rows, H heads of this rank, G key-value heads of this rank, D head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from megatron.core.models.backends import LocalSpecProvider
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel.layers import ColumnParallelLinear
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from nemo_amalia.model.context_parallel import zigzag_positions
from nemo_amalia.model.fp8_emulation import Fp8ColumnParallelLinear, Fp8Emulation, Fp8RowParallelLinear
from nemo_amalia.utils.errors import ConfigError


def _norm_parameter(value: float, size: int, config: TransformerConfig) -> torch.nn.Parameter:
    """A replicated norm vector [size]. Under SP each rank sees part of the tokens: Megatron sums its gradient."""
    parameter = torch.nn.Parameter(torch.full((size,), value, dtype=config.params_dtype))
    parameter.sequence_parallel = config.sequence_parallel
    return parameter


def _normalise(x: Tensor, weight: Tensor, bias: Tensor | None, config: TransformerConfig, eps: float) -> Tensor:
    if config.layernorm_zero_centered_gamma:
        weight = weight + 1
    if config.normalization == "RMSNorm":
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def _check_normalization(config: TransformerConfig) -> None:
    if config.normalization not in ("RMSNorm", "LayerNorm"):
        raise ConfigError(f"normalization is {config.normalization!r}; TorchSpecProvider has RMSNorm and LayerNorm")


class TorchNorm(torch.nn.Module):
    """RMSNorm or LayerNorm by ``config.normalization``; names as transformer_engine.pytorch.LayerNorm/RMSNorm."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_):
        super().__init__()
        _check_normalization(config)
        self.config, self.eps = config, eps
        unit = 0.0 if config.layernorm_zero_centered_gamma else 1.0
        self.weight = _norm_parameter(unit, hidden_size, config)
        self.bias = _norm_parameter(0.0, hidden_size, config) if config.normalization == "LayerNorm" else None

    def forward(self, x: Tensor) -> Tensor:
        return _normalise(x, self.weight, self.bias, self.config, self.eps)

    def get_extra_state(self) -> None:
        """Nothing, under a name: Transformer Engine's norm asks a checkpoint for ``_extra_state`` (ops/op.py), and a
        distributed checkpoint without it does not load. Megatron-Core's linears do the same for its linears."""

    def set_extra_state(self, state) -> None:
        """Transformer Engine's FP8 scales, which a norm has no use for."""


class TorchLayerNormColumnParallelLinear(ColumnParallelLinear):
    """Norm, then column-parallel linear; names as Transformer Engine's fused LayerNormLinear.

    Megatron Bridge splits parameters by class NAME: one that contains ``LayerNormColumnParallelLinear`` has a
    replicated ``layer_norm_weight`` and a column-parallel ``weight``.
    """

    def __init__(self, input_size: int, output_size: int, *, config: TransformerConfig, **kwargs):
        super().__init__(input_size, output_size, config=config, **kwargs)
        _check_normalization(config)
        unit = 0.0 if config.layernorm_zero_centered_gamma else 1.0
        self.layer_norm_weight = _norm_parameter(unit, input_size, config)
        has_bias = config.normalization == "LayerNorm"
        self.layer_norm_bias = _norm_parameter(0.0, input_size, config) if has_bias else None

    def forward(self, x: Tensor, *args, **kwargs):
        """x [S, B, input_size] (the rank's part of the tokens under SP) -> ([S_full, B, output_size / TP], bias)."""
        eps = self.config.layernorm_epsilon
        normalised = _normalise(x, self.layer_norm_weight, self.layer_norm_bias, self.config, eps)
        return super().forward(normalised, *args, **kwargs)


class Fp8LayerNormColumnParallelLinear(Fp8Emulation, TorchLayerNormColumnParallelLinear):
    """The same with the linear in emulated FP8; the norm is not."""


class TorchDotProductAttention(MegatronModule):
    """Attention by torch's scaled_dot_product_attention: causal or unmasked, rows or packed, with CP.

    Under CP each rank holds the two zigzag chunks that Megatron gives it (of every row, or of every segment of
    a pack). Keys and values are gathered over the CP group (backward: reduce-scatter) and the rank's queries
    attend to the tokens before them: the same sums as without CP.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: ProcessGroupCollection | None = None,
        **_,
    ):
        super().__init__(config=config)
        dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        if dropout:
            raise ConfigError(f"attention_dropout is {dropout}; TorchDotProductAttention has none: set it to 0.0")
        if attn_mask_type not in (AttnMaskType.causal, AttnMaskType.no_mask):
            raise ConfigError(f"attn_mask_type is {attn_mask_type}; TorchDotProductAttention has causal and no_mask")
        self.causal = attn_mask_type == AttnMaskType.causal
        self.scale = softmax_scale
        if pg_collection is None:
            pg_collection = ProcessGroupCollection.use_mpu_process_groups(required_pgs=["tp", "cp"])
        self.cp_group = getattr(pg_collection, "cp", None)
        self.cp_size = self.cp_group.size() if self.cp_group is not None else 1

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:
        """query [S, B, H, D], key and value [S, B, G, D] -> [S, B, H*D]; packed: [S, H, D] -> [S, H*D].

        ``attention_mask`` and ``attn_mask_type`` are ignored: rows are padded on the right, and a causal query
        never sees what follows it. Raises ConfigError for an attention bias.
        """
        if attention_bias is not None:
            raise ConfigError("TorchDotProductAttention has no attention bias; this model never passes one")
        if packed_seq_params is None:
            lengths = [query.shape[0]]
            out = self._segments(query, key, value, lengths)
            return out.flatten(2)
        bounds = packed_seq_params.cu_seqlens_q.tolist()
        lengths = [(end - start) // self.cp_size for start, end in zip(bounds, bounds[1:], strict=False)]
        out = self._segments(query[:, None], key[:, None], value[:, None], lengths)
        return out.squeeze(1).flatten(1)

    def _segments(self, query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
        """Attention within each run of ``lengths`` local tokens. All tensors [S, B, heads, D]."""
        if self.cp_size > 1:
            key, value = self._gather(key), self._gather(value)  # [CP, S, B, G, D]
        outs, start = [], 0
        for length in lengths:
            if not length:  # cu_seqlens may repeat its last entry
                continue
            local = slice(start, start + length)
            if self.cp_size > 1:
                outs.append(self._across_ranks(query[local], key[:, local], value[:, local]))
            else:
                outs.append(self._attend(query[local], key[local], value[local], mask=None))
            start += length
        return torch.cat(outs) if len(outs) > 1 else outs[0]

    def _gather(self, x: Tensor) -> Tensor:
        gathered = gather_from_sequence_parallel_region(x.contiguous(), group=self.cp_group)
        return gathered.view(self.cp_size, *x.shape)

    def _across_ranks(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [L, B, H, D]; key and value [CP, L, B, G, D], rank by rank in zigzag order."""
        length = query.shape[0]
        positions = [zigzag_positions(length, rank, self.cp_size) for rank in range(self.cp_size)]
        own = positions[self.cp_group.rank()].to(query.device)
        everyone = torch.cat(positions).to(query.device)
        mask = own[:, None] >= everyone[None, :] if self.causal else None
        return self._attend(query, key.flatten(0, 1), value.flatten(0, 1), mask)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=self.causal and mask is None,
            scale=self.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out.permute(2, 0, 1, 3)


class TorchSpecProvider(LocalSpecProvider):
    """Megatron-Core's BackendSpecProvider on plain torch, fused in name as Transformer Engine's is.

    fp8: its linears emulate FP8 (fp8_emulation.py), which their config must ask for.
    """

    def __init__(self, fp8: bool = False):
        self.fp8 = fp8

    def fuse_layernorm_and_linear(self) -> bool:
        return True

    def column_parallel_linear(self) -> type:
        return Fp8ColumnParallelLinear if self.fp8 else super().column_parallel_linear()

    def row_parallel_linear(self) -> type:
        return Fp8RowParallelLinear if self.fp8 else super().row_parallel_linear()

    def column_parallel_layer_norm_linear(self) -> type:
        return Fp8LayerNormColumnParallelLinear if self.fp8 else TorchLayerNormColumnParallelLinear

    def layer_norm(self, rms_norm: bool = False, for_qk: bool = False, has_residual: bool = False) -> type:
        return TorchNorm

    def core_attention(self) -> type:
        return TorchDotProductAttention
