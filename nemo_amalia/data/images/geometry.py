"""(width, height) -> grid, tiles, tokens: the one place that counts what an image costs.

The arithmetic, float rounding included, is that of transformers 5.12's LLaVA-NeXT: `select_best_resolution`
and `get_patch_output_size` (image_processing_utils.py), `unpad_image` and `pack_image_features`
(models/llava_next/modeling_llava_next.py), `LlavaNextProcessor._get_number_of_features`. The exported model
splices what we count, so a difference of one token is an error at inference: tests/parity compares 2,000
sizes.

Sizes are given as (width, height), the way Pillow names them; everything that comes back about pixels, tiles
or features is (height, width) or (rows, columns), the way tensors name them. Pure Python: no torch here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from nemo_amalia.utils.errors import DataError

# Distinct image sizes remembered; one entry is about 200 bytes.
CACHE_SIZE = 1 << 17


@dataclass(frozen=True)
class ImageGeometry:
    """How images become tiles and tokens.

    tile: side of a square tile in pixels (384 in the paper).
    patch: side of the tower's patch in pixels (16); a tile gives (tile // patch)**2 features.
    pinpoints: allowed canvas sizes in pixels as (height, width), multiples of `tile`. The order matters: of
        two equally good canvases transformers takes the first.
    Raises DataError when a canvas is not a whole number of tiles.
    """

    tile: int
    patch: int
    pinpoints: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "pinpoints", tuple((int(h), int(w)) for h, w in self.pinpoints))
        if self.tile < self.patch or self.patch < 1:
            raise DataError(
                f"tile is {self.tile} pixels and patch is {self.patch}: a tile must hold at least one patch; "
                "set tile to the tower's image_size and patch to its patch_size"
            )
        if not self.pinpoints:
            raise DataError("image_grid_pinpoints is empty: give at least one canvas, e.g. grids_up_to(12, 384)")
        for height, width in self.pinpoints:
            if height < 1 or width < 1 or height % self.tile or width % self.tile:
                raise DataError(
                    f"canvas {height}x{width} (height x width) is not a whole number of {self.tile}-pixel "
                    "tiles: "
                    "make both sides multiples of the tile"
                )
        # Hashing 35 pairs at each look-up would cost more than the look-up.
        object.__setattr__(self, "_hash", hash((self.tile, self.patch, self.pinpoints)))

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined]

    @property
    def patches_per_side(self) -> int:
        return self.tile // self.patch

    @property
    def tokens_per_tile(self) -> int:
        """Features of one tile before unpadding (576 for 384/16)."""
        return self.patches_per_side**2

    def canvas(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) in pixels of the canvas that suits the image best."""
        return _canvas(self, width, height)

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """(rows, columns) of tiles, the thumbnail not counted."""
        canvas_height, canvas_width = _canvas(self, width, height)
        return canvas_height // self.tile, canvas_width // self.tile

    def num_tiles(self, width: int, height: int, tiling: bool) -> int:
        """Tiles the tower encodes: the thumbnail, and the grid when tiling is on."""
        if not tiling:
            return 1
        rows, columns = self.grid(width, height)
        return 1 + rows * columns

    def fitted(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) in pixels of the image inside its canvas, aspect ratio kept, before padding."""
        return _fitted(self, width, height)

    def unpadded(self, width: int, height: int) -> tuple[int, int]:
        """(rows, columns) of the grid's features that are kept once the padding is cut off.

        The same number is cut from both ends: the kept block starts at (full - kept) // 2, where full is
        rows * patches_per_side or columns * patches_per_side. Rows or columns may be 0 for a sliver.
        """
        return _unpadded(self, width, height)

    def num_tokens(self, width: int, height: int, tiling: bool) -> int:
        """Tokens that the image takes in the text.

        tiling: thumbnail features, then the kept features with one image_newline at the end of every row.
        no tiling: thumbnail features, then one image_newline. That is what transformers' pack_image_features
        does with an image of a single tile (its processor never makes one: it always adds a grid).
        """
        if not tiling:
            return self.tokens_per_tile + 1
        rows, columns = _unpadded(self, width, height)
        return self.tokens_per_tile + rows * (columns + 1)


def grids_up_to(max_tiles: int, tile: int) -> tuple[tuple[int, int], ...]:
    """Every canvas of at most `max_tiles` tiles, as (height, width) in pixels: 35 for 12 tiles.

    Ordered by rows, then columns; the order decides ties and must be the same in the exported model.
    """
    if max_tiles < 1:
        raise DataError(f"max_tiles is {max_tiles}: it must be at least 1 (turn tiling off for the thumbnail alone)")
    return tuple(
        (rows * tile, columns * tile) for rows in range(1, max_tiles + 1) for columns in range(1, max_tiles // rows + 1)
    )


@lru_cache(maxsize=CACHE_SIZE)
def _canvas(geometry: ImageGeometry, width: int, height: int) -> tuple[int, int]:
    if width < 1 or height < 1:
        raise DataError(f"image of {width}x{height} pixels: both sides must be at least 1")
    best, best_effective, least_wasted = None, 0, math.inf
    for canvas_height, canvas_width in geometry.pinpoints:
        scale = min(canvas_width / width, canvas_height / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        wasted = canvas_width * canvas_height - effective
        if effective > best_effective or (effective == best_effective and wasted < least_wasted):
            best, best_effective, least_wasted = (canvas_height, canvas_width), effective, wasted
    assert best is not None  # the first canvas always wastes less than infinity
    return best


@lru_cache(maxsize=CACHE_SIZE)
def _fitted(geometry: ImageGeometry, width: int, height: int) -> tuple[int, int]:
    canvas_height, canvas_width = _canvas(geometry, width, height)
    scale_width, scale_height = canvas_width / width, canvas_height / height
    if scale_width < scale_height:
        return min(math.ceil(height * scale_width), canvas_height), canvas_width
    return canvas_height, min(math.ceil(width * scale_height), canvas_width)


@lru_cache(maxsize=CACHE_SIZE)
def _unpadded(geometry: ImageGeometry, width: int, height: int) -> tuple[int, int]:
    grid_rows, grid_columns = geometry.grid(width, height)
    rows, columns = grid_rows * geometry.patches_per_side, grid_columns * geometry.patches_per_side
    # The scale factor is computed first and multiplied after, and rounded to 7 digits, as in unpad_image.
    if width / height > columns / rows:
        kept = int(round(height * (columns / width), 7))
        return rows - (rows - kept) // 2 * 2, columns
    kept = int(round(width * (rows / height), 7))
    return rows, columns - (columns - kept) // 2 * 2
