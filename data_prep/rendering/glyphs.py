"""Letters as arrays: FreeType draws a glyph once a face and size, pages are then put together from copies.

Pillow draws every letter anew: most of a page's time (benchmarks/render.py has the figures).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

KEPT = 4000  # words a face remembers: a few MB


class Run(NamedTuple):
    """A word as it is drawn. pixels [h, w] uint8: coverage, cut to its ink. dx, dy: from the origin on the baseline to
    its upper left corner. advance: to the next origin.
    """

    pixels: np.ndarray
    dx: int
    dy: int
    advance: int


class Face:
    """One font file at one size in pixels. Positions are whole pixels, as FreeType's hinting makes them.

    ascent, descent: pixels above and below the baseline.
    """

    def __init__(self, path: str, size: int) -> None:
        # BASIC: Pillow's other engine is a library that a machine has or has not, and places letters elsewhere.
        self._font = ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
        self.path, self.size = path, size
        self.ascent, self.descent = self._font.getmetrics()
        self._glyphs: dict[str, tuple[np.ndarray, int, int]] = {}
        self._advances: dict[str, float] = {}
        self._runs: dict[str, Run] = {}

    def width(self, text: str) -> int:
        """Advance of a text without line breaks, in pixels."""
        return self.run(text).advance

    def run(self, text: str) -> Run:
        """A text without line breaks, put together from its glyphs with their kerning."""
        if (known := self._runs.get(text)) is not None:
            return known
        if len(self._runs) >= KEPT:
            self._runs.clear()
        placed, x, previous = [], 0.0, ""
        for character in text:
            if previous:
                x += self._advance(previous + character) - self._advance(character)
            pixels, left, top = self._glyph(character)
            if pixels.size:
                placed.append((pixels, round(x) + left, top))
            previous = character
        advance = round(x + self._advance(previous)) if previous else 0
        run = self._runs[text] = _joined(placed, advance)
        return run

    def draw(self, ink: np.ndarray, x: int, baseline: int, text: str) -> tuple[int, int, int, int] | None:
        """Adds a text to `ink` [H, W] uint8 (coverage); the box of its ink (x0, y0, x1, y1), None for white space.

        The text must lie inside `ink`.
        """
        pixels, dx, dy, _ = self.run(text)
        height, width = pixels.shape
        if not height:
            return None
        x0, y0 = x + dx, baseline + dy
        x1, y1 = x0 + width, y0 + height
        target = ink[y0:y1, x0:x1]
        np.maximum(target, pixels, out=target)
        return x0, y0, x1, y1

    def _advance(self, text: str) -> float:
        if (known := self._advances.get(text)) is None:
            known = self._advances[text] = self._font.getlength(text)
        return known

    def _glyph(self, character: str) -> tuple[np.ndarray, int, int]:
        """(coverage [h, w] uint8 cut to its ink, offset right of the origin, offset below the baseline)."""
        if (known := self._glyphs.get(character)) is None:
            left, top, right, bottom = (round(v) for v in self._font.getbbox(character, anchor="ls"))
            image = Image.new("L", (right - left + 2, bottom - top + 2))
            ImageDraw.Draw(image).text((1 - left, 1 - top), character, font=self._font, fill=255, anchor="ls")
            box = image.getbbox()
            if box is None:
                known = np.zeros((0, 0), np.uint8), 0, 0
            else:
                known = np.asarray(image.crop(box)), left - 1 + box[0], top - 1 + box[1]
            self._glyphs[character] = known
        return known


def _joined(placed: list[tuple[np.ndarray, int, int]], advance: int) -> Run:
    if not placed:
        return Run(np.zeros((0, 0), np.uint8), 0, 0, advance)
    left, top = min(p[1] for p in placed), min(p[2] for p in placed)
    right = max(x + pixels.shape[1] for pixels, x, _ in placed)
    bottom = max(y + pixels.shape[0] for pixels, _, y in placed)
    whole = np.zeros((bottom - top, right - left), np.uint8)
    for pixels, x, y in placed:
        target = whole[y - top : y - top + pixels.shape[0], x - left : x - left + pixels.shape[1]]
        np.maximum(target, pixels, out=target)
    return Run(whole, left, top, advance)


@lru_cache(maxsize=128)
def face(path: str, size: int) -> Face:
    """The face of a font file at a size in pixels; a process draws each of its letters once."""
    return Face(path, size)
