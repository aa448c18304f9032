"""The one place that chooses layers: Transformer Engine's on a GPU, TorchSpecProvider's elsewhere.

Both give the same module tree and parameter names, so a checkpoint written on either loads on the other.
"""

from megatron.core.extensions.transformer_engine import HAVE_TE
from megatron.core.fp8_utils import is_first_last_bf16_layer
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.backends import BackendSpecProvider
from megatron.core.models.gpt.gpt_layer_specs import get_mlp_module_spec_for_backend
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import (
    TransformerLayer,
    TransformerLayerSubmodules,
    get_transformer_layer_offset,
)


def backend(fp8: bool = False) -> BackendSpecProvider:
    """Transformer Engine's provider where it can run (the CPU platform hides it), else TorchSpecProvider.

    fp8: of layers that Megatron-Core computes in FP8; it tells Transformer Engine itself, which needs no other layers.
    """
    if HAVE_TE:
        from megatron.core.extensions.transformer_engine_spec_provider import TESpecProvider

        return TESpecProvider()
    from nemo_amalia.model.torch_backend import TorchSpecProvider

    return TorchSpecProvider(fp8)


def layer_spec(provider: BackendSpecProvider, mask: AttnMaskType) -> ModuleSpec:
    """One pre-norm transformer layer with norms fused into the linears that follow them."""
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            self_attention=ModuleSpec(
                module=SelfAttention,
                params={"attn_mask_type": mask},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=provider.column_parallel_layer_norm_linear(),
                    core_attention=provider.core_attention(),
                    linear_proj=provider.row_parallel_linear(),
                    q_layernorm=IdentityOp,
                    k_layernorm=IdentityOp,
                ),
            ),
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=IdentityOp,
            mlp=get_mlp_module_spec_for_backend(backend=provider),
            mlp_bda=get_bias_dropout_add,
        ),
    )


def decoder_layer_spec(config: TransformerConfig, vp_stage: int | None = None) -> TransformerBlockSubmodules:
    """The decoder layers of this pipeline stage: causal attention, final norm from the same backend."""
    first = get_transformer_layer_offset(config, vp_stage=vp_stage)
    numbers = range(first, first + get_num_layers_to_build(config, vp_stage=vp_stage))
    in_fp8 = [bool(config.fp8) and not is_first_last_bf16_layer(config, number) for number in numbers]
    specs = {fp8: layer_spec(backend(fp8), AttnMaskType.causal) for fp8 in set(in_fp8)}
    return TransformerBlockSubmodules(layer_specs=[specs[fp8] for fp8 in in_fp8], layer_norm=backend().layer_norm())


def vision_layer_spec(config: TransformerConfig) -> TransformerBlockSubmodules:
    """The tower's layers: every patch of a tile sees every other (SigLIP), no norm after the last layer."""
    provider = backend()
    spec = layer_spec(provider, AttnMaskType.no_mask)
    return TransformerBlockSubmodules(layer_specs=[spec] * config.num_layers, layer_norm=provider.layer_norm())
