"""What a renderer hands on: an image, and the record of every line and word that stands in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nemo_amalia.utils.errors import ConfigError

Box = tuple[int, int, int, int]  # x0, y0, x1, y1


@dataclass(frozen=True, slots=True)
class Page:
    """image: [H, W] (grey) or [H, W, 3] (RGB) uint8.

    lines: the text of each line as it stands in the image; joints: what stands between the line before and this one in
    the text ("" a word was broken, " " the line was wrapped, "\\n" a new line, "\\n\\n" a new paragraph).
    line_quads [L, 4, 2], word_quads [W, 4, 2] float32: corners (x, y) in pixels, clockwise from the text's upper left.
    words: texts; word_lines: the line of each.
    """

    image: np.ndarray
    lines: tuple[str, ...]
    joints: tuple[str, ...]
    line_quads: np.ndarray
    words: tuple[str, ...]
    word_lines: tuple[int, ...]
    word_quads: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]

    def text(self) -> str:
        """The text read again from the lines of the record."""
        return "".join(joint + line for joint, line in zip(self.joints, self.lines, strict=True))

    def moved(self, dx: float, dy: float, image: np.ndarray) -> Page:
        """The same record in another image, in which it lies dx to the right and dy further down."""
        by = np.array([dx, dy], np.float32)
        return replace(self, image=image, line_quads=self.line_quads + by, word_quads=self.word_quads + by)


def quads_of(boxes: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """Boxes [N, 4] (x0, y0, x1, y1) or quads [N, 4, 2] -> quads [N, 4, 2] float32. ValueError on another shape."""
    array = np.asarray(boxes, np.float32)
    if array.size == 0:
        return np.zeros((0, 4, 2), np.float32)
    if array.ndim == 3 and array.shape[1:] == (4, 2):
        return array
    if array.ndim != 2 or array.shape[1] != 4:
        raise ConfigError(f"boxes have shape {array.shape}: expected [N, 4] (x0, y0, x1, y1) or [N, 4, 2] corners")
    x0, y0, x1, y1 = array.T
    return np.stack([np.stack(c, -1) for c in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], axis=1)


def bounds(quads: np.ndarray) -> np.ndarray:
    """Quads [N, 4, 2] -> the upright boxes around them [N, 4] (x0, y0, x1, y1)."""
    return np.concatenate([quads.min(axis=1), quads.max(axis=1)], axis=1)


def around(boxes: Sequence[Box]) -> Box:
    """The smallest box around some."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)
