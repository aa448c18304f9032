"""From the connector's tokens to the decoder's input: order, unpad, newline, splice. Pure torch functions.

The order is transformers' (models/llava_next/modeling_llava_next.py, ``pack_image_features``): the thumbnail first,
then the grid row by row of the whole canvas with its padding cut off and one image_newline at the end of every row;
an image of a single tile is its thumbnail and one newline.

Sizes and counts are host values, so nothing here waits for the device.

Legend: T tiles, n tokens of a tile, h width of the decoder, N tokens of all images, B rows, S tokens of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from nemo_amalia.data.images.geometry import ImageGeometry
from nemo_amalia.utils.errors import ConfigError

NEWLINE = -1


@lru_cache(maxsize=512)
def token_order(geometry: ImageGeometry, height: int, width: int, tiles: int) -> Tensor:
    """Which of the image's ``tiles * n`` connector tokens stands where; NEWLINE for image_newline. [tokens] int64.

    Raises ConfigError when ``tiles`` is neither 1 nor what the geometry cuts an image of this size into.
    """
    side = geometry.patches_per_side
    thumbnail = torch.arange(side * side)
    newline = torch.tensor([NEWLINE])
    if tiles == 1:
        return torch.cat([thumbnail, newline])
    grid_rows, grid_columns = geometry.grid(width, height)
    if tiles != 1 + grid_rows * grid_columns:
        raise ConfigError(
            f"an image of {width}x{height} comes with {tiles} tiles and its grid {grid_rows}x{grid_columns} has "
            f"{1 + grid_rows * grid_columns} with the thumbnail: data and model differ in image_grid_pinpoints"
        )
    y, x = torch.arange(grid_rows * side)[:, None], torch.arange(grid_columns * side)[None, :]
    tile = 1 + (y // side) * grid_columns + x // side
    canvas = tile * side * side + (y % side) * side + x % side
    rows, columns = geometry.unpadded(width, height)
    top, left = (grid_rows * side - rows) // 2, (grid_columns * side - columns) // 2
    kept = canvas[top : top + rows, left : left + columns]
    lines = torch.cat([kept, newline.expand(rows, 1)], dim=1)
    return torch.cat([thumbnail, lines.flatten()])


def pack_image_features(
    features: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    tiles_per_image: Sequence[int],
    geometry: ImageGeometry,
    image_newline: Tensor,
    image_order: Sequence[int] | None = None,
) -> Tensor:
    """Tokens of all images in the order in which they stand in the text.

    features [T, n, h], image_sizes (height, width) of each image, image_newline [h] -> [N, h]. image_order: which image
    stands where; one that stands twice (in both answers of a preference pair) gets the gradients of both places, added
    up. None: each stands once, in order. Raises ConfigError when sizes, tiles and features do not fit together.
    """
    per_tile = features.shape[1]
    if per_tile != geometry.tokens_per_tile or sum(tiles_per_image) != features.shape[0]:
        raise ConfigError(
            f"{features.shape[0]} tiles of {per_tile} tokens came for {sum(tiles_per_image)} tiles of "
            f"{geometry.tokens_per_tile}: the batch was made for another model"
        )
    orders, first = [], 0
    for (height, width), tiles in zip(image_sizes, tiles_per_image, strict=True):
        order = token_order(geometry, int(height), int(width), int(tiles))
        orders.append(torch.where(order < 0, NEWLINE, order + first * per_tile))
        first += int(tiles)
    index = torch.cat(orders if image_order is None else _in_text(orders, image_order))
    if features.is_cuda:
        index = index.pin_memory().to(features.device, non_blocking=True)
    tokens = features.flatten(0, 1).index_select(0, index.clamp(min=0))
    # Not a row of the gathered table: the newline's gradient is then one reduction in fp32, and not thousands of
    # additions into one bf16 row.
    return torch.where((index < 0)[:, None], image_newline.to(tokens.dtype), tokens)


def _in_text(orders: list[Tensor], image_order: Sequence[int]) -> list[Tensor]:
    if sorted(set(image_order)) != list(range(len(orders))):
        raise ConfigError(
            f"image_order names the images {sorted(set(image_order))} and the micro-batch has {len(orders)}: "
            "each must stand in the text"
        )
    return [orders[image] for image in image_order]


def splice(embeddings: Tensor, token_ids: Tensor, image_token_id: int, image_features: Tensor) -> Tensor:
    """Puts image tokens in the place of their placeholders, row by row of the batch.

    embeddings [S, B, h], token_ids [B, S], image_features [N, h] -> [S, B, h].
    Raises ConfigError on the CPU when the placeholders are not N; on a GPU the collator has counted (asking the device
    here would stall every step).
    """
    mask = token_ids == image_token_id
    count = image_features.shape[0]
    if not mask.is_cuda and int(mask.sum()) != count:
        raise ConfigError(
            f"the text has {int(mask.sum())} image placeholders and the images give {count} tokens: the batch was "
            "made with another image_grid_pinpoints, patch size or connector than the model's"
        )
    flat = mask.flatten()
    # Text positions read some row too, and drop it; spreading them keeps the backward pass from adding all their
    # zeros to a single row.
    spread = torch.arange(flat.numel(), device=flat.device) % count
    order = torch.where(flat, flat.cumsum(0) - 1, spread).view_as(mask).t()
    rows = image_features.index_select(0, order.flatten()).view_as(embeddings)
    return torch.where(mask.t()[..., None], rows.to(embeddings.dtype), embeddings)


def without_images(embeddings: Tensor, *encoded: Tensor) -> Tensor:
    """The embeddings themselves, tied to ``encoded`` with weight 0 (docs/architecture.md, Data).

    Every parameter behind ``encoded`` gets a gradient of zeros, so no rank waits for one. Masked and not multiplied
    by 0.0: zero times NaN is NaN.
    """
    nothing = sum(x.masked_fill(torch.ones((), dtype=torch.bool, device=x.device), 0.0).sum() for x in encoded)
    return embeddings + nothing.to(embeddings.dtype)
