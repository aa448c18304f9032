"""What a sample must look like when a pipeline ends, and how it goes into a shard with its provenance."""

from __future__ import annotations

from typing import Any

from nemo_amalia.data.shards.write import KEY, image_suffix
from nemo_amalia.utils.errors import DataError

IMAGE = "<image>"  # how a string writes an image (docs/data.md); a list writes {"type": "image"}


def check_output(sample: dict[str, Any]) -> None:
    """Raises DataError where training would refuse the sample: its key, messages, images or placeholders."""
    key = sample["key"]
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise DataError(f"key {key!r} may hold only letters, digits, - and _: have the source or the last step name it")
    messages, images = sample.get("messages"), sample.get("images", [])
    if not isinstance(messages, list) or not messages or not all(_is_turn(turn) for turn in messages):
        raise DataError(f"sample {key} ends the pipeline without messages: expected a list of role and content")
    for number, data in enumerate(images):
        try:
            image_suffix(data)
        except (DataError, TypeError) as error:
            raise DataError(f"image {number} of sample {key}: {error}; have a step encode or drop it") from error
    placed = sum(_placeholders(turn["content"]) for turn in messages)
    if placed != len(images):
        raise DataError(f"sample {key} has {placed} image placeholders and {len(images)} images: make them equal")


def shard_sample(sample: dict[str, Any], provenance: dict[str, Any], name: str) -> dict[str, Any]:
    """For write_shards: the data set's name is the `source` that training counts by; where the sample's material came
    from is in its provenance.
    """
    kept = {field: sample[field] for field in ("id", "chosen", "rejected") if field in sample}
    return kept | {
        "key": sample["key"],
        "messages": sample["messages"],
        "images": sample.get("images", []),
        "source": name,
        "language": sample.get("language", ""),
        "provenance": provenance,
    }


def provenance_of(
    sample: dict[str, Any], models: list[list[str]], prompts: list[str], run: dict[str, Any], commit: str
) -> dict[str, Any]:
    """source and licence are the material's; models by role, each with its version; prompts as name@hash."""
    by_role: dict[str, list[str]] = {}
    for role, model in models:
        by_role.setdefault(role, []).append(model)
    return {
        "source": sample["source"],
        "licence": sample["licence"],
        "models": by_role,
        "prompts": prompts,
        "pipeline": run["name"],
        "seed": run["seed"],
        "commit": commit,
    }


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("role"), str) and "content" in turn


def _placeholders(content: Any) -> int:
    if isinstance(content, list):
        return sum(isinstance(part, dict) and part.get("type") == "image" for part in content)
    return str(content).count(IMAGE)
