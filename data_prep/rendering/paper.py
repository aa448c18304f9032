"""Ink on paper: coverage -> image, the grain of paper, the window of a screen."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from data_prep.config import settings
from nemo_amalia.utils.errors import ConfigError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 32 << 20  # bytes: the most that glibc takes for it
KEPT = 256 << 20  # bytes of free memory that a process keeps for the next arrays


def keep_memory() -> bool:
    """Tell malloc to serve large arrays from memory that the process already has; False without mallopt.

    glibc gives every array above 128 kB (up to 32 MB, as it learns) pages fresh from the kernel, and returns them when
    it is dropped; a page of 2 megapixels in RGB then costs about as much in page faults as in drawing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, LARGEST) and mallopt(_M_TRIM_THRESHOLD, KEPT))


keep_memory()
cv2.setNumThreads(1)  # a worker a core: OpenCV's own threads would only wait for each other

TILE = 1024  # side of the noise that grain and perturb() cut from, in pixels
BAR = 44  # height of a window's bar in pixels
BUTTONS = ((237, 106, 94), (245, 191, 79), (98, 197, 84))


@dataclass(frozen=True, slots=True)
class Look:
    """Colours are RGB. grain: standard deviation in levels of 255. window: colour of a window's bar, None on paper."""

    name: str
    paper: tuple[int, int, int]
    ink: tuple[int, int, int]
    grain: float = 0.0
    window: tuple[int, int, int] | None = None

    @property
    def grey(self) -> bool:
        """True where one channel says it all."""
        return self.window is None and all(len(set(colour)) == 1 for colour in (self.paper, self.ink))


def look(name: str) -> Look:
    """A look of conf/data_prep/render.yaml. Raises ConfigError naming those there are."""
    papers = settings("render")["papers"]
    if name not in papers:
        raise ConfigError(f"unknown paper {name!r}: conf/data_prep/render.yaml has {', '.join(papers)}")
    entry = papers[name]
    window = tuple(entry["window"]) if "window" in entry else None
    return Look(name, tuple(entry["paper"]), tuple(entry["ink"]), entry["grain"], window)


def print_on(ink: np.ndarray, on: Look, offset: int = 0) -> np.ndarray:
    """Coverage [H, W] uint8 (255: ink) -> image [H, W] where the look is grey, else [H, W, 3], uint8 with RGB.

    offset: which part of the grain (any number; pages of one look would else share it).
    """
    share = np.arange(256, dtype=np.float32)[:, None] / 255
    table = np.asarray(on.paper, np.float32) * (1 - share) + np.asarray(on.ink, np.float32) * share
    table = np.rint(table).astype(np.uint8)  # [256, 3]
    if on.grey:
        image = cv2.LUT(ink, table[:, 0])
    else:
        image = cv2.merge([cv2.LUT(ink, np.ascontiguousarray(table[:, c])) for c in range(3)])
    return add_noise(image, on.grain, offset) if on.grain else image


def add_noise(image: np.ndarray, sigma: float, offset: int) -> np.ndarray:
    """The image with grey Gaussian noise of `sigma` levels; the noise is cut at `offset` from one that is kept."""
    height, width = image.shape[:2]
    y, x = divmod(offset % (TILE * TILE), TILE)
    noise, sign = (plane[y : y + height, x : x + width] for plane in _sized(height + TILE, width + TILE))
    size = cv2.convertScaleAbs(noise, None, sigma / 32, 0)  # 8 bits hold no sign: it is the second plane
    plus, minus = cv2.bitwise_and(size, sign), cv2.bitwise_and(size, cv2.bitwise_not(sign))
    if image.ndim == 3:
        plus, minus = cv2.merge([plus] * 3), cv2.merge([minus] * 3)
    return cv2.subtract(cv2.add(image, plus), minus)


def _sized(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return _planes(max(-(-height // TILE), 3), max(-(-width // TILE), 3))


@lru_cache(maxsize=4)
def _planes(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise int16 of deviation 32, and 255 where it is positive; whole tiles, the same in every process."""
    tile = np.random.default_rng(2026).normal(0, 32, (TILE, TILE)).clip(-127, 127).astype(np.int16)
    whole = np.tile(tile, (rows, columns))
    return whole, np.where(whole > 0, 255, 0).astype(np.uint8)


def window(image: np.ndarray, bar: tuple[int, int, int]) -> np.ndarray:
    """An RGB image [H, W, 3] under the bar of a window: [H + BAR, W, 3]. What stood in it lies BAR further down."""
    height, width = image.shape[:2]
    framed = np.empty((height + BAR, width, 3), np.uint8)
    framed[:BAR] = bar
    framed[BAR:] = image
    for number, colour in enumerate(BUTTONS):
        cv2.circle(framed, (28 + 26 * number, BAR // 2), 7, colour, -1, cv2.LINE_AA)
    return framed
