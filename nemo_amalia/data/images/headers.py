"""What is known of a compressed image before it is decoded, from its header and its end alone. No torch in here:
importing data reads headers too, and should start at once.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from nemo_amalia.utils.errors import ConfigError, DataError

ORIENTATION_TAG = 0x0112
DALI_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")


# Pillow warns and raises by a limit that the whole process shares. No thread may see ours, nor a fork keep it.
_limit = threading.RLock()
os.register_at_fork(before=_limit.acquire, after_in_parent=_limit.release, after_in_child=_limit.release)


class ImageError(DataError):
    """An image that cannot be used, and why."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is known of an image before it is decoded. width, height: pixels, after EXIF orientation (1 to
    8).
    """

    width: int
    height: int
    orientation: int
    dali: bool


def check_max_pixels(value: int, option: str) -> int:
    """The value itself. Raises ConfigError on one that would refuse every image, or that is no number of pixels."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{option} is {value!r}: expected a number of pixels, 1 or more")
    return value


class _Exactly(int):
    """Pillow warns above a limit and raises above `2 * limit`: of this one, twice is the same, and nothing warns."""

    def __rmul__(self, _: int) -> int:
        return int(self)


@contextlib.contextmanager
def pillow_limit(pixels: int) -> Iterator[None]:
    """Within it Pillow raises DecompressionBombError above `pixels`, also of what lies inside a file (the frames of a
    GIF, the PNG of an icon), and never warns. Its own limit is back at the end.
    """
    with _limit:
        kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _Exactly(pixels)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = kept


def read_header(data: bytes, max_image_pixels: int) -> ImageHeader:
    """Size and orientation of an image from its header alone (about 30 microseconds).

    Raises ImageError on bytes that are no image, a file whose end is missing, an image of more than `max_image_pixels`,
    16-bit grayscale or float pixels (transformers would clip those to white), and EPS.
    """
    try:
        with pillow_limit(max_image_pixels), Image.open(io.BytesIO(data)) as image:
            (width, height), mode, kind = image.size, image.mode, image.format
            orientation = _orientation(image)
    except Image.DecompressionBombError as error:
        size = str(error).partition(" exceeds")[0]
        raise ImageError(
            f"{size}: at most {max_image_pixels:,} are allowed; scale it down, or raise max_image_pixels"
        ) from error
    except Exception as error:  # Pillow's plugins raise struct.error, SyntaxError, OSError and others
        raise ImageError(f"{len(data)} bytes that no image format recognises ({type(error).__name__})") from error
    if mode.startswith(("I", "F")):
        raise ImageError(f"{kind} with {mode!r} pixels would be clipped: convert it to 8 bits a channel first")
    if kind == "EPS":
        raise ImageError("EPS is a program, and Pillow would start Ghostscript for it: convert it to pixels first")
    if not _is_complete(data, kind):
        raise ImageError(f"{kind} of {len(data)} bytes has no end: the file is truncated")
    dali = kind in DALI_FORMATS and not (kind == "PNG" and data[24] == 16)
    if orientation > 4:
        width, height = height, width
    return ImageHeader(width, height, orientation, dali)


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":  # Pillow gives size and pixels upright; to turn them again would be wrong in silence
        return 1
    if image.format == "PNG":  # getexif() of a PNG without EXIF would decode the whole image
        exif = Image.Exif()
        if image.info.get("exif"):
            exif.load(image.info["exif"])
    else:
        exif = image.getexif()
    value = exif.get(ORIENTATION_TAG, 1)
    return value if value in range(1, 9) else 1


def _is_complete(data: bytes, kind: str | None) -> bool:
    """Whether the end marker is there: decoders fill what is missing with gray and say nothing."""
    if kind in ("JPEG", "MPO"):
        return data.rfind(b"\xff\xd9") > _scan_start(data)
    if kind == "PNG":
        return data.rfind(b"IEND") > 0
    if kind == "WEBP":
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    return True


def _scan_start(data: bytes) -> int:
    """Offset of a JPEG's first scan; an EXIF thumbnail before it has an end marker of its own."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            return position
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return len(data)
