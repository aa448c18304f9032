"""Raw WebDataset records -> ConversationSample.

A record is `key.json` = {"messages": [...], "source": "...", "language": "..."} with its images beside it as
`key.0.jpg`, `key.1.png`, ... in the order of their placeholders, or a single `key.jpg`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nemo_amalia.data.samples import BadSampleError, ConversationSample

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")


def sample_key(record: Mapping[str, Any]) -> str:
    """`shard.tar/key` where Energon says which shard it was, else the key: what errors and logs call a
    sample.
    """
    key, sources = record["__key__"], record.get("__sources__")
    return f"{sources[0].shard_name}/{key.rsplit('/', 1)[-1]}" if sources else key


def cook_conversation(record: Mapping[str, Any]) -> ConversationSample:
    """Raises BadSampleError on a record without a readable json, and on images whose numbers have gaps."""
    key = sample_key(record)
    if "json" not in record:
        parts = sorted(name for name in record if not name.startswith("__"))
        raise BadSampleError(f"sample {key} has no json part, only {parts}: write it with write_shards", "record")
    raw = record["json"]
    try:
        content = json.loads(raw) if isinstance(raw, bytes | str) else raw
        messages = content["messages"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadSampleError(
            f"the json of sample {key} cannot be used ({type(error).__name__}: {error}): "
            'expected {"messages": [...], "source": "...", "language": "..."}',
            "record",
        ) from error
    return ConversationSample(
        key=key,
        messages=messages,
        images=_ordered_images(record, key),
        source=str(content.get("source", "")),
        language=str(content.get("language", "")),
    )


def _ordered_images(record: Mapping[str, Any], key: str) -> tuple[bytes, ...]:
    numbered: dict[int, bytes] = {}
    for name, data in record.items():
        head, _, suffix = name.rpartition(".")
        if name.startswith("__") or suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if head and not head.isdigit():
            raise BadSampleError(f"sample {key} has an image part {name!r}: expected 0.jpg, 1.png, ...", "record")
        number = int(head) if head else 0
        if number in numbered:
            raise BadSampleError(f"sample {key} has two images numbered {number}: number them 0, 1, ...", "record")
        numbered[number] = data
    if sorted(numbered) != list(range(len(numbered))):
        expected = f"expected 0 to {len(numbered) - 1}"
        raise BadSampleError(f"sample {key} has images numbered {sorted(numbered)}: {expected}", "record")
    return tuple(numbered[number] for number in sorted(numbered))
