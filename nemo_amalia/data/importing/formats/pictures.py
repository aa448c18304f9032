"""A picture as a record gives it -> compressed bytes that training can read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nemo_amalia.data.images.headers import read_header
from nemo_amalia.data.importing.formats.records import BadRecordError
from nemo_amalia.data.shards.write import image_suffix
from nemo_amalia.utils.errors import DataError

MAX_BYTES = 200_000_000  # of one compressed picture: what a record may take of the memory


def pictures_of(value: Any, folder: Path, max_image_pixels: int) -> list[bytes]:
    """One picture or a list of them: bytes, {"bytes", "path"} as Hugging Face stores them, or a path below `folder`.

    Raises BadRecordError on one that is missing or that training would refuse. Headers and end markers are read,
    pixels are not: what only a decoder notices is dropped in training.
    """
    if value is None or value == "" or value == []:
        return []
    items = value if isinstance(value, list) else [value]
    return [_checked(_bytes_of(item, folder), index, max_image_pixels) for index, item in enumerate(items)]


def _bytes_of(item: Any, folder: Path) -> bytes:
    if isinstance(item, dict):
        item = item.get("bytes") or item.get("path") or item.get("bytes")  # b"" is an image that is broken, not missing
    if isinstance(item, bytes):
        return item
    if not isinstance(item, str) or not item:
        raise BadRecordError("missing_image", f"has no picture where one should be, but {repr(item)[:60]}")
    if "://" in item:
        raise BadRecordError("missing_image", f"names the address {item[:80]}: download the pictures first")
    return read_picture(folder, item)


def read_picture(folder: Path, name: str) -> bytes:
    """The bytes of folder/name. Raises BadRecordError when it is not there, too long, or outside the folder."""
    base = os.path.normpath(os.path.abspath(folder))
    path = os.path.normpath(os.path.join(base, name))
    if os.path.commonpath((base, path)) != base:  # a source must not read what nobody gave it
        raise BadRecordError("missing_image", f"names {name}, which lies outside {base}: give --images")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        fault = getattr(error, "strerror", None) or error
        seen = f"names {name}, which is not in {base} ({fault})"
        raise BadRecordError("missing_image", f"{seen}: give --images, the folder where its paths begin") from error
    return data


def _checked(data: bytes, index: int, max_image_pixels: int) -> bytes:
    if len(data) > MAX_BYTES:
        raise BadRecordError("image", f"picture {index} has more than {MAX_BYTES:,} bytes: scale it down")
    try:
        read_header(data, max_image_pixels)
        image_suffix(data)
    except DataError as error:
        raise BadRecordError("image", f"picture {index}: {error}") from error
    return data
