"""Images as the tower sees them: tiles made by the code that trains, put together again, with lines over them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import torch
from PIL import Image

from nemo_amalia.data.encoding.hf_folder import Assets
from nemo_amalia.data.images.decode import ImageError, TileMaker, make_tiles
from nemo_amalia.data.samples import BadSampleError
from nemo_amalia.data.view.read import Seen

CANVAS_SIDE, THUMBNAIL_SIDE, QUALITY = 480, 120, 80  # pixels on the page; JPEG quality
MAX_HEIGHT = 420  # of a canvas, CSS pixels
MAX_IMAGES = 8  # drawn of one sample
BUDGET = 9_000_000  # bytes of data URIs on a page


@dataclass(frozen=True)
class Canvas:
    """The tiles put together, as a data URI, and SVG paths over them: tile borders and padding, in canvas pixels.

    wide: width of the canvas on the page at most, in CSS pixels. padding: empty where the image fills the canvas.
    """

    uri: str
    width: int
    height: int
    rows: int
    columns: int
    wide: int
    cuts: str
    padding: str


@dataclass(frozen=True)
class Picture:
    """One image of a sample, counted from 1; without tiling it has a thumbnail alone."""

    number: int
    width: int
    height: int
    tokens: int
    thumbnail: str
    canvas: Canvas | None


@dataclass
class Album:
    """Draws images until the page holds BUDGET bytes of them; `left_out` counts those that found no room."""

    assets: Assets
    max_image_pixels: int
    spent: int = 0
    left_out: int = 0

    def __post_init__(self) -> None:
        self._maker = TileMaker(self.assets.geometry, self.max_image_pixels)

    def draw(self, seen: Seen) -> list[Picture]:
        """Draw the images of a sample. Raises BadSampleError on one that cannot be decoded."""
        sample = seen.tokens
        decoded = self._maker.decode(sample.images)
        for index, pixels in enumerate(decoded):
            if isinstance(pixels, ImageError):
                raise BadSampleError(f"image {index} of sample {seen.key}: {pixels}", "image")
        pictures = []
        for index, pixels in enumerate(decoded):
            if index >= MAX_IMAGES or self.spent > BUDGET:
                self.left_out += 1
                continue
            pictures.append(self._picture(pixels, index, sample.image_sizes[index], sample.tiling))
        return pictures

    def _picture(self, pixels: torch.Tensor, index: int, size: tuple[int, int], tiling: bool) -> Picture:
        tiles = make_tiles(pixels, self.assets.geometry, tiling)
        thumbnail = self._uri(tiles[0], THUMBNAIL_SIDE)
        canvas = self._canvas(tiles[1:], *size) if tiling else None
        return Picture(index + 1, *size, self.assets.geometry.num_tokens(*size, tiling), thumbnail, canvas)

    def _canvas(self, tiles: torch.Tensor, width: int, height: int) -> Canvas:
        """tiles: uint8 [rows * columns, 3, side, side], those of an image of width x height."""
        geometry = self.assets.geometry
        rows, columns = geometry.grid(width, height)
        side = geometry.tile
        grid = tiles.view(rows, columns, 3, side, side).permute(2, 0, 3, 1, 4).reshape(3, rows * side, columns * side)
        return Canvas(
            uri=self._uri(grid, CANVAS_SIDE),
            width=columns * side,
            height=rows * side,
            rows=rows,
            columns=columns,
            wide=MAX_HEIGHT * columns // rows,
            cuts=self._cuts(width, height),
            padding=self._padding(width, height),
        )

    def _cuts(self, width: int, height: int) -> str:
        """Tile borders as an SVG path."""
        tile, (canvas_height, canvas_width) = self.assets.geometry.tile, self.assets.geometry.canvas(width, height)
        cuts = [f"M{x} 0V{canvas_height}" for x in range(tile, canvas_width, tile)]
        cuts += [f"M0 {y}H{canvas_width}" for y in range(tile, canvas_height, tile)]
        return "".join(cuts)

    def _padding(self, width: int, height: int) -> str:
        """The canvas around the image as an SVG path, to be filled by the even-odd rule."""
        canvas_height, canvas_width = self.assets.geometry.canvas(width, height)
        fitted_height, fitted_width = self.assets.geometry.fitted(width, height)
        if (fitted_height, fitted_width) == (canvas_height, canvas_width):
            return ""
        top, left = (canvas_height - fitted_height) // 2, (canvas_width - fitted_width) // 2
        whole = f"M0 0H{canvas_width}V{canvas_height}H0Z"
        return f"{whole}M{left} {top}V{top + fitted_height}H{left + fitted_width}V{top}Z"

    def _uri(self, pixels: torch.Tensor, side: int) -> str:
        """uint8 [3, h, w] as a JPEG of at most `side` pixels, in a data URI."""
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
        image.thumbnail((side, side))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=QUALITY)
        uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        self.spent += len(uri)
        return uri
