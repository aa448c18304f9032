"""LLaVA's JSON: {"id", "image" or "images": path(s), "conversations": [{"from", "value": "<image>\\n..."}, ...]}.

One .json list, or a .jsonl (https://github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemo_amalia.data.importing.formats.conversations import match_images, messages_of, require_answers
from nemo_amalia.data.importing.formats.pictures import pictures_of
from nemo_amalia.data.importing.formats.records import (
    BadRecordError,
    Format,
    ReadOptions,
    first_present,
    require_object,
)
from nemo_amalia.data.importing.formats.rows import TEXT, find_files, read_rows


def convert(row: Any, folder: Path, options: ReadOptions) -> dict[str, Any]:
    """One record -> sample. Raises BadRecordError."""
    row = require_object(row)
    turns = first_present(row, ("conversations", "messages"))
    if turns is None:
        raise BadRecordError("record", f"has the fields {list(row)}: expected conversations")
    if first_present(row, ("video", "videos")):
        raise BadRecordError("record", "has a video, which this model does not see")
    messages = messages_of(turns)
    require_answers(messages)
    images = pictures_of(first_present(row, ("images", "image")), folder, options.max_image_pixels)
    match_images(messages, len(images))
    return {"messages": messages, "images": images}


FORMAT = Format(
    "LLaVA: a .json list or .jsonl of conversations with <image>, pictures below --images",
    lambda source: find_files(source, TEXT),
    read_rows,
    convert,
)
