"""LlavaNextConfig <-> AmaliaVLModelProvider."""

from __future__ import annotations

import copy
from typing import Any

from nemo_amalia.bridge.supported import ARCHITECTURE, is_tied, rope_of
from nemo_amalia.model.provider import AmaliaVLModelProvider, ConnectorConfig, VisionConfig
from nemo_amalia.utils.errors import CheckpointError

# (transformers' SiglipVisionConfig, our VisionConfig)
VISION_FIELDS = (
    ("hidden_size", "hidden_size"),
    ("num_hidden_layers", "num_layers"),
    ("num_attention_heads", "num_attention_heads"),
    ("intermediate_size", "ffn_hidden_size"),
    ("image_size", "image_size"),
    ("patch_size", "patch_size"),
    ("layer_norm_eps", "layernorm_epsilon"),
    ("hidden_act", "activation"),
    ("num_channels", "num_channels"),
)
# What Bridge's Llama map (CONFIG_MAPPING) gives back that belongs in a LlamaConfig.
TEXT_FIELDS = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "initializer_range",
    "attention_dropout",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "hidden_act",
)


def decoder_config(config: Any) -> Any:
    """The text config as Bridge's Llama map wants it: with the top level's tying and dtype."""
    text = copy.deepcopy(config.text_config)
    text.tie_word_embeddings = is_tied(config)
    text.dtype = getattr(config, "dtype", None) or getattr(text, "dtype", None)
    return text


def provider_fields(config: Any) -> dict[str, Any]:
    """What the provider has beyond a decoder."""
    vision = {ours: getattr(config.vision_config, theirs) for theirs, ours in VISION_FIELDS}
    rope = rope_of(config.text_config)
    return {
        **(_yarn_fields(config.text_config, rope) if rope["rope_type"] == "yarn" else {}),
        "vision": VisionConfig(**vision, feature_layer=-1),
        "connector": ConnectorConfig(type="mlp", hidden_act=config.projector_hidden_act),
        "image_token_id": config.image_token_index,
        "image_grid_pinpoints": [list(map(int, canvas)) for canvas in config.image_grid_pinpoints],
    }


def _yarn_fields(text: Any, rope: dict) -> dict[str, Any]:
    """What transformers takes for granted in YaRN (modeling_rope_utils.py) and Megatron-Core wants to be told."""
    original = rope.get("original_max_position_embeddings")
    return {
        "yarn_original_max_position_embeddings": original or text.max_position_embeddings,
        "yarn_beta_fast": rope.get("beta_fast") or 32,
        "yarn_beta_slow": rope.get("beta_slow") or 1,
        "yarn_correction_range_round_to_int": rope.get("truncate", True),
    }


def to_hf(provider: AmaliaVLModelProvider, llama: dict[str, Any]) -> dict[str, Any]:
    """LlavaNextConfig's content for a provider; ``llama`` is what Bridge's Llama map made of it.

    Raises CheckpointError for a connector that transformers' LLaVA-NeXT does not have.
    """
    if provider.connector.type != "mlp" or not provider.connector.bias:
        raise CheckpointError(
            f"the connector is {provider.connector.type!r} with bias={provider.connector.bias}; transformers' "
            "LLaVA-NeXT has a 2-layer MLP with biases only, so this model cannot be exported"
        )
    text = {name: llama[name] for name in TEXT_FIELDS if name in llama}
    rope = {"rope_type": "default", **llama.get("rope_scaling", {}), "rope_theta": provider.rotary_base}
    vision = {theirs: getattr(provider.vision, ours) for theirs, ours in VISION_FIELDS}
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "llava_next",
        "dtype": llama["torch_dtype"],
        "text_config": {**text, "model_type": "llama", "rope_parameters": rope},
        "vision_config": {**vision, "model_type": "siglip_vision_model", "vision_use_head": False},
        "image_token_index": provider.image_token_id,
        "image_grid_pinpoints": [list(canvas) for canvas in provider.image_grid_pinpoints],
        "image_seq_length": provider.vision.patches_per_side**2,
        "projector_hidden_act": provider.connector.hidden_act,
        "multimodal_projector_bias": True,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "tie_word_embeddings": provider.share_embeddings_and_output_weights,
    }


def differences(config: dict, expected: dict, prefix: str = "") -> list[str]:
    """Fields of ``expected`` that ``config`` has with another value, as "name: config's, expected"."""
    found = []
    for name, value in expected.items():
        ours = config.get(name)
        if isinstance(value, dict):
            found += differences(ours or {}, value, f"{prefix}{name}.")
        elif ours != value:
            found.append(f"{prefix}{name}: {ours!r} and {value!r}")
    return found
