"""Images -> the bytes that a sample carries."""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.config import settings
from nemo_amalia.utils.errors import ConfigError


def encode(image: np.ndarray, fmt: str | None = None, quality: int | None = None) -> bytes:
    """An image [H, W] or [H, W, 3] (RGB) uint8 as JPEG or PNG; what is not given is conf/data_prep/render.yaml's.

    Equal images give equal bytes. Raises ConfigError on another format.
    """
    values = settings("render")["encode"]
    fmt = fmt or values["format"]
    if fmt not in ("jpeg", "png"):
        raise ConfigError(f"image format {fmt!r}: expected jpeg or png")
    turned = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if fmt == "png":
        options = [cv2.IMWRITE_PNG_COMPRESSION, values["png_compression"]]
    else:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality or values["quality"]]
    return cv2.imencode(f".{'jpg' if fmt == 'jpeg' else 'png'}", turned, options)[1].tobytes()
