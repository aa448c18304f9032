"""LlavaNextBridge: transformers' LLaVA-NeXT (SigLIP tower, Llama decoder) for Megatron Bridge.

Importing this module registers it, so ``AutoBridge.from_hf_pretrained`` finds it too, and allows Bridge to build our
provider again from a checkpoint's run_config.yaml.
"""

from __future__ import annotations

from types import SimpleNamespace

from megatron.bridge.models.conversion.mapping_registry import MegatronMappingRegistry
from megatron.bridge.models.conversion.model_bridge import MegatronModelBridge
from megatron.bridge.models.conversion.param_mapping import (
    AutoMapping,
    GatedMLPMapping,
    QKVMapping,
    ReplicatedMapping,
)
from megatron.bridge.models.llama.llama_bridge import LlamaBridge
from megatron.bridge.utils.instantiate_utils import register_allowed_target_prefix
from transformers import LlavaNextForConditionalGeneration

from nemo_amalia.bridge import config_map, supported, weight_map
from nemo_amalia.model.amalia_vl import AmaliaVLModel
from nemo_amalia.model.provider import AmaliaVLModelProvider

register_allowed_target_prefix("nemo_amalia")
# Bridge decides by class name how a parameter is split. TorchLayerNormColumnParallelLinear's name says it already.
AutoMapping.register_module_type("TorchNorm", "replicated")
AutoMapping.register_module_type("Fp8ColumnParallelLinear", "column")
AutoMapping.register_module_type("Fp8RowParallelLinear", "row")


class ReplicatedQKVMapping(QKVMapping):
    """Query, key, value <-> Megatron's interleaved QKV, whole on every tensor-parallel rank.

    Bridge's QKVMapping asks the layer's class, ColumnParallelLinear, and would split the tower's.
    """

    def __init__(self, megatron_param: str, q: str, k: str, v: str):
        super().__init__(megatron_param, q, k, v)
        self._tp_mapping = ReplicatedMapping(megatron_param, megatron_param)

    def hf_to_megatron(self, hf_weights, megatron_module):
        """Each rank has read the file: every one merges, as ReplicatedMapping wants a tensor on all of them."""
        from megatron.bridge.models.conversion.param_mapping import merge_qkv_biases, merge_qkv_weights

        merge = merge_qkv_biases if hf_weights["q"].ndim == 1 else merge_qkv_weights
        merged = merge(self._get_config(megatron_module), hf_weights["q"], hf_weights["k"], hf_weights["v"])
        return self._tp_mapping.hf_to_megatron(merged, megatron_module)


@MegatronModelBridge.register_bridge(
    source=LlavaNextForConditionalGeneration,
    target=AmaliaVLModel,
    provider=AmaliaVLModelProvider,
    model_type="llava_next",
)
class LlavaNextBridge(LlamaBridge):
    """Config and weights in both directions. The decoder's config map is Bridge's own for Llama."""

    def provider_bridge(self, hf_pretrained) -> AmaliaVLModelProvider:
        """Provider for a LlavaNextConfig. Raises CheckpointError for one that the Megatron model cannot express."""
        config = hf_pretrained.config
        supported.check_supported(config)
        provider = super().provider_bridge(SimpleNamespace(config=config_map.decoder_config(config)))
        for name, value in config_map.provider_fields(config).items():
            setattr(provider, name, value)
        return provider

    @classmethod
    def megatron_to_hf_config(cls, provider: AmaliaVLModelProvider) -> dict:
        """LlavaNextConfig's content for a provider. ``max_position_embeddings`` is the provider's seq_length."""
        return config_map.to_hf(provider, super().megatron_to_hf_config(provider))

    def mapping_registry(self) -> MegatronMappingRegistry:
        """The tables of weight_map.py, under the names of the folder that is read (or the portable ones)."""
        form = self._key_form()
        tower, text = "vision_tower.", "language_model."
        maps = [_tower_mapping(tower + m, form.tower + h) for m, h in weight_map.TOWER.items()]
        maps += [
            ReplicatedQKVMapping(tower + m, *(form.tower + h for h in hs)) for m, hs in weight_map.TOWER_QKV.items()
        ]
        maps += [ReplicatedMapping("connector." + m, form.connector + h) for m, h in weight_map.CONNECTOR.items()]
        maps.append(ReplicatedMapping(weight_map.NEWLINE, form.newline))
        maps += [AutoMapping(text + m, form.decoder + h) for m, h in weight_map.DECODER.items()]
        maps.append(AutoMapping(text + weight_map.OUTPUT, form.output))
        maps += [QKVMapping(text + m, *(form.decoder + h for h in hs)) for m, hs in weight_map.DECODER_QKV.items()]
        maps += [
            GatedMLPMapping(text + m, *(form.decoder + h for h in hs)) for m, hs in weight_map.DECODER_GATED.items()
        ]
        return MegatronMappingRegistry(*maps)

    def _key_form(self) -> weight_map.KeyForm:
        state = getattr(getattr(self, "hf_pretrained", None), "state", None)
        if state is None or not hasattr(state, "source"):  # only a config: an export
            return weight_map.PORTABLE
        return weight_map.key_form(state.source.get_all_keys())

    def build_conversion_tasks(self, hf_pretrained, megatron_model, weight_dtype=None):
        """Bridge's tasks, after a check that no tensor is missing: Bridge itself would only warn and go on."""
        if hasattr(hf_pretrained, "state") and hasattr(hf_pretrained.state, "source"):
            check_tensors(hf_pretrained)
        return super().build_conversion_tasks(hf_pretrained, megatron_model, weight_dtype=weight_dtype)

    def maybe_modify_converted_hf_weight(self, task, converted_weights_dict, hf_state_dict):
        """LlamaBridge would look for rotary buffers here; a LLaVA-NeXT has none."""
        return converted_weights_dict


def _tower_mapping(megatron: str, hf: str):
    # AutoMapping finds fused norms replicated by their name, and the registry adds the unfused name for it alone.
    return (AutoMapping if ".layer_norm_" in megatron else ReplicatedMapping)(megatron, hf)


def check_tensors(hf_pretrained) -> None:
    """Raises CheckpointError when an HF folder lacks tensors of its config's model, or has others."""
    keys = hf_pretrained.state.source.get_all_keys()
    config = hf_pretrained.config
    form, tied = weight_map.key_form(keys), supported.is_tied(config)
    expected = weight_map.hf_keys(
        form, config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers, tied
    )
    # A tied output may be on disk as well; it is the embedding again.
    present = [key for key in keys if not (tied and key == form.output)]
    weight_map.check_keys(present, expected, str(hf_pretrained.model_name_or_path))
