"""The model's settings as a checkpoint saved them."""

from __future__ import annotations

from megatron.bridge.training.model_load_save import load_model_config
from megatron.bridge.utils.instantiate_utils import register_allowed_target_prefix

from nemo_amalia.bridge.checkpoints import latest_iteration
from nemo_amalia.model.provider import AmaliaVLModelProvider
from nemo_amalia.utils.errors import CheckpointError


def read_provider(checkpoint: str) -> AmaliaVLModelProvider:
    """The model's config as its checkpoint saved it. Raises CheckpointError for a missing or foreign checkpoint."""
    register_allowed_target_prefix("nemo_amalia")
    provider, _ = load_model_config(str(latest_iteration(checkpoint)))
    if not isinstance(provider, AmaliaVLModelProvider):
        raise CheckpointError(
            f"{checkpoint} holds a {type(provider).__name__}, expected an AmaliaVLModelProvider: "
            "make it with `amalia import`"
        )
    return provider
