"""LlavaNextConfig <-> AmaliaVLModelProvider, and what of LLaVA-NeXT's config space we can train."""

from __future__ import annotations

import copy
from typing import Any

from nemo_amalia.model.connectors import ACTIVATIONS
from nemo_amalia.model.provider import AmaliaVLModelProvider, ConnectorConfig, VisionConfig

ARCHITECTURE = "LlavaNextForConditionalGeneration"

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
# Megatron-Core's llama3 RoPE scaling has these built in (rotary_pos_embedding.py, _apply_scaling).
LLAMA3_FIXED = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def rope_of(text_config: Any) -> dict:
    """RoPE parameters of a Llama config as transformers 5 keeps them, ``rope_type`` and ``rope_theta`` included."""
    return {"rope_type": "default", **(getattr(text_config, "rope_parameters", None) or {})}


def is_tied(config: Any) -> bool:
    """Whether input and output embeddings are one tensor: the top level decides (LlavaNextConfig)."""
    return bool(config.tie_word_embeddings)


def check_supported(config: Any) -> None:
    """Raises ValueError, naming the field, when the Megatron model would not compute what this config means."""
    architecture = (getattr(config, "architectures", None) or [type(config).__name__])[0]
    if getattr(config, "model_type", None) != "llava_next":
        raise ValueError(
            f"the HF folder holds a {architecture} (model_type {getattr(config, 'model_type', None)!r}); expected "
            f"{ARCHITECTURE}: to start from a SigLIP and a Llama folder use --vision and --llm"
        )
    vision, text = config.vision_config, config.text_config
    wanted = (
        ("vision_config.model_type", vision.model_type, ("siglip_vision_model",)),
        ("text_config.model_type", text.model_type, ("llama",)),
        ("vision_feature_select_strategy", config.vision_feature_select_strategy, ("full",)),
        ("vision_feature_layer", config.vision_feature_layer, (-1, [-1])),
        ("multimodal_projector_bias", config.multimodal_projector_bias, (True,)),
        ("projector_hidden_act", config.projector_hidden_act, tuple(ACTIVATIONS)),
        ("vision_config.hidden_act", vision.hidden_act, tuple(ACTIVATIONS)),
        ("text_config.hidden_act", text.hidden_act, ("silu",)),
        ("text_config.attention_bias", text.attention_bias, (False,)),
        ("text_config.mlp_bias", text.mlp_bias, (False,)),
        ("text_config.rope_parameters.rope_type", rope_of(text)["rope_type"], ROPE_TYPES),
    )
    for name, value, allowed in wanted:
        if value not in allowed:
            raise ValueError(
                f"{name} is {value!r} in the HF config; this model has {' or '.join(map(repr, allowed))}: "
                "take a LLaVA-NeXT with a SigLIP tower and a Llama decoder"
            )
    _check_rope(rope_of(text))


def _check_rope(rope: dict) -> None:
    fixed = LLAMA3_FIXED if rope["rope_type"] == "llama3" else {}
    for name, value in fixed.items():
        if rope.get(name, value) != value:
            raise ValueError(
                f"rope_parameters.{name} is {rope[name]}; Megatron-Core's llama3 scaling has {value} built in, "
                "so this checkpoint's positions cannot be reproduced"
            )
    if rope.get("attention_factor") is not None:
        raise ValueError(
            f"rope_parameters.attention_factor is {rope['attention_factor']}; Megatron-Core computes its own from "
            "factor, mscale and mscale_all_dim: remove it if it equals the computed one"
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
    return {
        "vision": VisionConfig(**vision, feature_layer=-1),
        "connector": ConnectorConfig(type="mlp", hidden_act=config.projector_hidden_act),
        "image_token_id": config.image_token_index,
        "image_grid_pinpoints": [list(map(int, canvas)) for canvas in config.image_grid_pinpoints],
    }


def to_hf(provider: AmaliaVLModelProvider, llama: dict[str, Any]) -> dict[str, Any]:
    """LlavaNextConfig's content for a provider; ``llama`` is what Bridge's Llama map made of it.

    Raises ValueError for a connector that transformers' LLaVA-NeXT does not have.
    """
    if provider.connector.type != "mlp" or not provider.connector.bias:
        raise ValueError(
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
