"""The decoder's sizes as a checkpoint saved them, read as plain values: for checks before any rank starts. No Megatron.

bridge/saved_config.py makes the whole model provider of the same file, which takes Megatron.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nemo_amalia.bridge.checkpoints import latest_iteration
from nemo_amalia.utils.errors import CheckpointError
from nemo_amalia.utils.files import quoted, read_yaml


@dataclass(frozen=True)
class SavedSizes:
    """What config/validation/model.py compares with a layout (its DecoderSizes); vocab_size as saved, unpadded."""

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    num_query_groups: int | None
    kv_channels: int | None
    vocab_size: int


def read_sizes(checkpoint: str | Path) -> SavedSizes:
    """Read the sizes from the newest iteration of a checkpoint.

    Raises:
        CheckpointError: it is missing or corrupt, or its run_config.yaml names no model of these sizes.
    """
    file = latest_iteration(checkpoint) / "run_config.yaml"
    saved = read_yaml(file)
    model = saved.get("model") if isinstance(saved, dict) else None
    model = model if isinstance(model, dict) else {}
    for item in fields(SavedSizes):
        if not _is_size(model.get(item.name), optional=item.type == "int | None"):
            raise CheckpointError(
                f"{quoted(file)} has {model.get(item.name)!r} for model.{item.name}, expected a whole number above 0: "
                "make the checkpoint with `amalia import`, or restore that file"
            )
    return SavedSizes(**{item.name: model.get(item.name) for item in fields(SavedSizes)})


def _is_size(value: Any, optional: bool) -> bool:
    return (value is None and optional) or (type(value) is int and value > 0)
