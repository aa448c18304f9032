"""Hugging Face parquet: `messages`, the older `conversations`, or The Cauldron's `texts`, with pictures as bytes.

Pictures stand in `images` or `image`, as bytes or as {"bytes", "path"} (datasets' Image feature).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemo_amalia.data.importing.formats.conversations import (
    match_images,
    messages_of,
    messages_of_pairs,
    require_answers,
)
from nemo_amalia.data.importing.formats.pictures import pictures_of
from nemo_amalia.data.importing.formats.records import (
    BadRecordError,
    Format,
    ReadOptions,
    first_present,
    require_object,
)
from nemo_amalia.data.importing.formats.rows import find_files, read_rows


def convert(row: Any, folder: Path, options: ReadOptions) -> dict[str, Any]:
    """One row -> sample. Raises BadRecordError."""
    row = require_object(row)
    turns, pairs = first_present(row, ("messages", "conversations")), first_present(row, ("texts",))
    if turns is None and pairs is None:
        raise BadRecordError("record", f"has nothing in messages, conversations or texts, only in {_filled(row)}")
    messages = messages_of(turns) if turns is not None else messages_of_pairs(pairs)
    require_answers(messages)
    images = pictures_of(first_present(row, ("images", "image")), folder, options.max_image_pixels)
    match_images(messages, len(images), pictures_first=True)
    return {"messages": messages, "images": images}


def _filled(row: dict[str, Any]) -> list[str]:
    return [name for name, value in row.items() if value is not None]


FORMAT = Format(
    "Hugging Face parquet with messages, conversations or texts, and pictures as bytes",
    lambda source: find_files(source, {".parquet"}),
    read_rows,
    convert,
)
