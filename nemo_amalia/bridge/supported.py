"""What of LLaVA-NeXT's config space this model can express. Needs no megatron: a wrong folder is refused at once."""

from __future__ import annotations

from typing import Any

from nemo_amalia.model.connectors import ACTIVATIONS
from nemo_amalia.utils.errors import CheckpointError

ARCHITECTURE = "LlavaNextForConditionalGeneration"
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
    """Raises CheckpointError, naming the field, when the Megatron model would not compute what this config means."""
    architecture = (getattr(config, "architectures", None) or [type(config).__name__])[0]
    if getattr(config, "model_type", None) != "llava_next":
        raise CheckpointError(
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
            raise CheckpointError(
                f"{name} is {value!r} in the HF config; this model has {' or '.join(map(repr, allowed))}: "
                "take a LLaVA-NeXT with a SigLIP tower and a Llama decoder"
            )
    _check_rope(rope_of(text))


def _check_rope(rope: dict) -> None:
    fixed = LLAMA3_FIXED if rope["rope_type"] == "llama3" else {}
    for name, value in fixed.items():
        if rope.get(name, value) != value:
            raise CheckpointError(
                f"rope_parameters.{name} is {rope[name]}; Megatron-Core's llama3 scaling has {value} built in, "
                "so this checkpoint's positions cannot be reproduced"
            )
    if rope.get("attention_factor") is not None:
        raise CheckpointError(
            f"rope_parameters.attention_factor is {rope['attention_factor']}; Megatron-Core computes its own from "
            "factor, mscale and mscale_all_dim: remove it if it equals the computed one"
        )
