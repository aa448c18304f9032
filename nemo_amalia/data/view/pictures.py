"""Images as the tower sees them: tiles made by the code that trains, put together again, with lines over them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape

import torch
from PIL import Image

from nemo_amalia.data.encoding.hf_folder import Assets
from nemo_amalia.data.images.headers import MAX_PIXELS
from nemo_amalia.data.images.tiles import ImageError, TileMaker, make_tiles
from nemo_amalia.data.samples import BadSampleError
from nemo_amalia.data.view.read import Seen

CANVAS_SIDE, THUMBNAIL_SIDE, QUALITY = 480, 120, 80  # pixels on the page; JPEG quality
MAX_HEIGHT = 420  # of a canvas, CSS pixels
MAX_IMAGES = 8  # drawn of one sample
BUDGET = 9_000_000  # bytes of data URIs on a page


@dataclass
class Album:
    """Draws images until the page holds BUDGET bytes of them; `left_out` counts those that found no room."""

    assets: Assets
    max_pixels: int = MAX_PIXELS
    spent: int = 0
    left_out: int = 0

    def __post_init__(self) -> None:
        self._maker = TileMaker(self.assets.geometry, max_pixels=self.max_pixels)

    def draw(self, seen: Seen) -> list[str]:
        """A <figure> for each image of a sample. Raises BadSampleError on one that cannot be decoded."""
        sample = seen.tokens
        decoded = self._maker.decode(sample.images)
        for index, pixels in enumerate(decoded):
            if isinstance(pixels, ImageError):
                raise BadSampleError(f"image {index} of sample {seen.key}: {pixels}", "image")
        figures = []
        for index, pixels in enumerate(decoded):
            if index >= MAX_IMAGES or self.spent > BUDGET:
                self.left_out += 1
                continue
            figures.append(self._figure(pixels, index, sample.image_sizes[index], sample.tiling))
        return figures

    def _figure(self, pixels: torch.Tensor, index: int, size: tuple[int, int], tiling: bool) -> str:
        geometry, (width, height) = self.assets.geometry, size
        tiles = make_tiles(pixels, geometry, tiling)
        thumbnail = self._uri(tiles[0], THUMBNAIL_SIDE)
        tokens = f"{geometry.num_tokens(width, height, tiling):,} tokens"
        small = f'<img class="thumb" src="{thumbnail}" width="72" height="72" alt="Thumbnail tile">'
        if not tiling:
            return f"<figure>{small}<figcaption>{width} × {height}: thumbnail alone, {tokens}</figcaption></figure>"
        rows, columns = geometry.grid(width, height)
        side = geometry.tile
        grid = (
            tiles[1:].view(rows, columns, 3, side, side).permute(2, 0, 3, 1, 4).reshape(3, rows * side, columns * side)
        )
        alt = f"Image {index + 1} on its canvas of {rows} × {columns} tiles"
        return (
            f'<figure><div class="canvas" style="--wide:{MAX_HEIGHT * columns // rows}px">'
            f'<img src="{self._uri(grid, CANVAS_SIDE)}" alt="{escape(alt)}">'
            f"{self._lines(width, height)}</div>{small}"
            f"<figcaption>{width} × {height} on {columns * side} × {rows * side}: {rows} × {columns} tiles and the "
            f"thumbnail, <b>{tokens}</b></figcaption></figure>"
        )

    def _lines(self, width: int, height: int) -> str:
        """Tile borders, and the border of the image inside its padding, in the canvas's own pixels."""
        geometry = self.assets.geometry
        canvas_height, canvas_width = geometry.canvas(width, height)
        fitted_height, fitted_width = geometry.fitted(width, height)
        top, left = (canvas_height - fitted_height) // 2, (canvas_width - fitted_width) // 2
        cuts = "".join(f"M{x} 0V{canvas_height}" for x in range(geometry.tile, canvas_width, geometry.tile))
        cuts += "".join(f"M0 {y}H{canvas_width}" for y in range(geometry.tile, canvas_height, geometry.tile))
        padding = ""
        if (fitted_height, fitted_width) != (canvas_height, canvas_width):
            whole = f"M0 0H{canvas_width}V{canvas_height}H0Z"
            hole = f"M{left} {top}V{top + fitted_height}H{left + fitted_width}V{top}Z"
            padding = f'<path class="padding" fill-rule="evenodd" d="{whole}{hole}"/>'
        return (
            f'<svg viewBox="0 0 {canvas_width} {canvas_height}" preserveAspectRatio="none" aria-hidden="true">'
            f'{padding}<path class="cut under" d="{cuts}"/><path class="cut" d="{cuts}"/></svg>'
        )

    def _uri(self, pixels: torch.Tensor, side: int) -> str:
        """uint8 [3, h, w] as a JPEG of at most `side` pixels, in a data URI."""
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
        image.thumbnail((side, side))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=QUALITY)
        uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        self.spent += len(uri)
        return uri
