"""Samples that are damaged the ways the web damages them, as (reason, json bytes, [(suffix, bytes)])."""

import io
import json
import struct
import tarfile
import zlib

import numpy as np
from chatml import picture
from PIL import Image

from nemo_amalia.data.shards import prepare_folder

HTML = b"<!DOCTYPE html><html><body><h1>403 Forbidden</h1></body></html>"


def text(images: int = 1, **changes) -> bytes:
    messages = [{"role": "user", "content": "<image>" * images + "?"}, {"role": "assistant", "content": "Sim."}]
    return json.dumps({"messages": messages, "source": "teste", "language": "pt"} | changes).encode()


def saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width: int = 30000, height: int = 30000) -> bytes:
    """A PNG of 900 million pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def wrong_crc() -> bytes:
    data = bytearray(picture(64, 48, 3, "PNG"))
    start = data.index(b"IDAT")
    end = start + 4 + struct.unpack(">I", data[start - 4 : start])[0]
    data[end] ^= 0xFF
    return bytes(data)


def broken(data: bytes) -> bytes:
    """Sound at both ends, overwritten in the middle."""
    half = len(data) // 2
    return data[:half] + bytes(400) + data[half + 400 :]


def damaged() -> dict[str, tuple[str, bytes, list[tuple[str, bytes]]]]:
    """name -> (the reason it is dropped for, json, images)."""
    grey = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64))
    real = Image.fromarray(np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64))
    images = {
        "truncated-jpeg": ("jpg", picture(90, 60)[:-300]),
        "truncated-png": ("png", picture(90, 60, 1, "PNG")[:-300]),
        "truncated-webp": ("webp", picture(90, 60, 2, "WEBP")[:-100]),
        "truncated-gif": ("gif", picture(90, 60, 3, "GIF")[:-1500]),
        "zero-bytes": ("jpg", b""),
        "html-page": ("jpg", HTML),
        "noise-after-magic": ("jpg", b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4),
        "broken-png": ("png", broken(picture(90, 60, 4, "PNG"))),
        "wrong-crc": ("png", wrong_crc()),
        "sixteen-bit": ("png", saved(grey, "PNG")),
        "float-tiff": ("tif", saved(real, "TIFF")),
        "bomb": ("png", bomb()),
    }
    found = {name: ("image", text(), [image]) for name, image in images.items()}
    good = ("jpg", picture(40, 40, 9))
    return found | {
        "json-cut": ("record", text()[:-20], [good]),
        "json-empty": ("record", b"", [good]),
        "no-messages": ("record", b'{"source": "teste"}', [good]),
        "image-missing": ("placeholders", text(2), [good]),
    }


def unnoticed() -> dict[str, tuple[bytes, list[tuple[str, bytes]]]]:
    """Overwritten in the middle of lossy data: there is no checksum, every decoder shows noise and says nothing."""
    return {
        "broken-jpeg": (text(), [("jpg", broken(picture(190, 160, 4)))]),
        "broken-webp": (text(), [("webp", broken(picture(190, 160, 4, "WEBP")))]),
    }


def write_raw(folder, samples, samples_per_shard: int = 25):
    """{key: (json bytes, [(suffix, bytes)])} as indexed shards, without write_shards' checks."""
    folder.mkdir(parents=True)
    items = list(samples.items())
    for number, start in enumerate(range(0, len(items), samples_per_shard)):
        with tarfile.open(folder / f"shard-{number:06d}.tar", "w") as tar:
            for key, (content, images) in items[start : start + samples_per_shard]:
                parts = [("json", content), *((f"{i}.{suffix}", data) for i, (suffix, data) in enumerate(images))]
                for name, data in parts:
                    info = tarfile.TarInfo(f"{key}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    prepare_folder(folder)
    return folder
