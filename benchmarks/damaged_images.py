"""Twelve ways in which the web damages a picture so that it cannot be used; for tests and benchmarks."""

import io
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from nemo_amalia.data.shards.write import add_parts, prepare_folder

HTML = b"<!DOCTYPE html><html><body><h1>403 Forbidden</h1></body></html>"


def damaged_images(encoded: Callable[[str], bytes]) -> dict[str, tuple[str, bytes]]:
    """name -> (file suffix, bytes). encoded: a sound picture of one format, by Pillow's name of it."""
    grey = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64))
    real = Image.fromarray(np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64))
    return {
        "truncated-jpeg": ("jpg", _cut(encoded("JPEG"))),
        "truncated-png": ("png", _cut(encoded("PNG"))),
        "truncated-webp": ("webp", _cut(encoded("WEBP"))),
        "truncated-gif": ("gif", _cut(encoded("GIF"))),
        "zero-bytes": ("jpg", b""),
        "html-page": ("jpg", HTML),
        "noise-after-magic": ("jpg", b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4),
        "broken-png": ("png", broken(encoded("PNG"))),
        "wrong-crc": ("png", _wrong_crc(encoded("PNG"))),
        "sixteen-bit": ("png", _saved(grey, "PNG")),
        "float-tiff": ("tif", _saved(real, "TIFF")),
        "bomb": ("png", bomb()),
    }


def broken(data: bytes) -> bytes:
    """Sound at both ends, overwritten in the middle."""
    half = len(data) // 2
    return data[:half] + bytes(400) + data[half + 400 :]


def bomb(width: int = 30000, height: int = 30000) -> bytes:
    """A PNG of 900 million pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def write_raw(
    folder: Path, samples: Mapping[str, tuple[bytes, list[tuple[str, bytes]]]], samples_per_shard: int = 25
) -> Path:
    """{key: (json bytes, [(suffix, bytes)])} as indexed shards, without write_shards' checks."""
    folder.mkdir(parents=True)
    items = list(samples.items())
    for number, start in enumerate(range(0, len(items), samples_per_shard)):
        with tarfile.open(folder / f"shard-{number:06d}.tar", "w") as tar:
            for key, (content, images) in items[start : start + samples_per_shard]:
                parts = [(f"{key}.{i}.{suffix}", data) for i, (suffix, data) in enumerate(images)]
                add_parts(tar, [(f"{key}.json", content), *parts])
    prepare_folder(folder)
    return folder


def _cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def _wrong_crc(png: bytes) -> bytes:
    data = bytearray(png)
    start = data.index(b"IDAT")
    end = start + 4 + struct.unpack(">I", data[start - 4 : start])[0]
    data[end] ^= 0xFF
    return bytes(data)


def _saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
