"""Several pages in one image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from data_prep.rendering.page import Page
from nemo_amalia.utils.errors import ConfigError


def panel(
    pages: Sequence[Page], direction: str = "row", gap: int = 24, background: tuple[int, int, int] = (128, 128, 128)
) -> tuple[np.ndarray, list[Page]]:
    """Pages side by side ("row"), one below the other ("column"), or in rows of two ("grid"), read left to right and
    down.

    gap: pixels between and around them. Returns the image, grey where all of it is, and the pages with their records
    in that image. Raises ConfigError on no pages and on another direction.
    """
    across = {"row": len(pages), "column": 1, "grid": min(2, len(pages))}.get(direction)
    if not pages or across is None:
        raise ConfigError(
            f"a panel of {len(pages)} pages, direction {direction!r}: expected pages, and row, column or grid"
        )
    rows = [pages[start : start + across] for start in range(0, len(pages), across)]
    widths = [max(row[n].size[0] for row in rows if n < len(row)) for n in range(across)]
    heights = [max(page.size[1] for page in row) for row in rows]
    grey = len(set(background)) == 1 and all(page.image.ndim == 2 for page in pages)
    shape = sum(heights) + gap * (len(rows) + 1), sum(widths) + gap * (across + 1)
    image = np.empty(shape if grey else (*shape, 3), np.uint8)
    image[:] = background[0] if grey else background
    places, y = [], gap
    for row, height in zip(rows, heights, strict=True):
        x = gap
        for page, width in zip(row, widths, strict=False):
            part = page.image if grey or page.image.ndim == 3 else cv2.cvtColor(page.image, cv2.COLOR_GRAY2RGB)
            image[y : y + page.size[1], x : x + page.size[0]] = part
            places.append((x, y))
            x += width + gap
        y += height + gap
    return image, [page.moved(dx, dy, image) for page, (dx, dy) in zip(pages, places, strict=True)]
