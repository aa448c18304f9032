"""Compressed bytes -> tiles of 8 bits a channel. Normalised only where they are used: a quarter of the bytes travels.

DALI decodes (on the GPU with device="mixed"), torchvision resizes on the device where the pixels are, exactly
as transformers' LlavaNextImageProcessor (torchvision backend) does: bicubic with antialias on uint8, the
image centred on a black canvas, tiles row by row, the thumbnail (a plain square resize) first.

EXIF orientation is applied, by us, in the header and in the pixels alike: transformers' `load_image`,
datasets' image decoding and vLLM all do so before the processor sees an image. DALI's own rotation stays
off, so that the two can never disagree.
"""

from __future__ import annotations

import io
import os
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from nemo_amalia.data.images.geometry import ImageGeometry
from nemo_amalia.data.images.headers import ImageError, ImageHeader, pillow_limit, read_header
from nemo_amalia.utils.errors import DataError

DALI_BATCH = 16  # images whose pixels are in memory together
NO_CAUSE = re.compile(r"^Failed to decode sample #\d+\s*:")  # before DALI's cause, which may be empty

# One pipeline serves every TileMaker of a process. What a forked child inherits has no threads there, and
# DALI's __del__ waits for them for ever: the child keeps it, so that its garbage collector never gets to it.
_pipelines: dict[tuple[str, int], Any] = {}
_built: list[weakref.ref] = []
_inherited: list[Any] = []


def _after_fork() -> None:
    _inherited.extend(pipeline for pipeline in (ref() for ref in _built) if pipeline is not None)
    _pipelines.clear()


os.register_at_fork(after_in_child=_after_fork)


def apply_orientation(image: torch.Tensor, orientation: int) -> torch.Tensor:
    """[C, H, W] turned upright: the eight cases of PIL.ImageOps.exif_transpose."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(-1, -2)
    flips = {2: (-1,), 3: (-1, -2), 4: (-2,), 6: (-1,), 7: (-1, -2), 8: (-2,)}.get(orientation, ())
    return image.flip(flips) if flips else image


def make_tiles(image: torch.Tensor, geometry: ImageGeometry, tiling: bool) -> torch.Tensor:
    """uint8 [C, h, w] -> uint8 tiles [n, C, H, W], thumbnail first, then the grid row by row.

    Tiles lie as decoders give pixels (channels_last): torchvision resizes those two to three times as fast, with the
    same result (benchmarks/images.py).
    """
    height, width = image.shape[-2:]
    side = geometry.tile
    rows, columns = (length // side for length in geometry.canvas(width, height)) if tiling else (0, 0)
    shape = (1 + rows * columns, 3, side, side)
    tiles = torch.empty(shape, dtype=torch.uint8, device=image.device, memory_format=torch.channels_last)
    tiles[0] = _resize(image, (side, side))
    if not tiling:
        return tiles
    fitted = _resize(image, geometry.fitted(width, height))
    # The odd pixel of padding goes to the right and to the bottom, as in _get_padding_size.
    top, left = (rows * side - fitted.shape[-2]) // 2, (columns * side - fitted.shape[-1]) // 2
    if top or left or fitted.shape[-2:] != (rows * side, columns * side):
        tiles[1:].zero_()
    for index in range(rows * columns):
        (above, here_y), (beside, here_x) = (
            _overlap(number * side - start, side, length)
            for number, start, length in zip(divmod(index, columns), (top, left), fitted.shape[-2:], strict=True)
        )
        tiles[1 + index][:, here_y, here_x] = fitted[:, above, beside]
    return tiles


def _overlap(start: int, side: int, length: int) -> tuple[slice, slice]:
    """Of a line of pixels 0..length and a tile that begins at `start` of it: the part, in the line and in the tile."""
    first, last = max(start, 0), min(start + side, length)
    return slice(first, last), slice(first - start, last - start)


def normalise(tiles: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 -> float32 [T, C, H, W], (x / 255 - mean) / std in transformers' fused order; on the device of `tiles`."""
    mean, std = ((torch.tensor(values, device=tiles.device) * 255.0).view(-1, 1, 1) for values in (mean, std))
    return tiles.to(torch.float32, memory_format=torch.contiguous_format).sub_(mean).div_(std)


def _resize(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return tv.resize(image, list(size), interpolation=tv.InterpolationMode.BICUBIC, antialias=True)


class TileMaker:
    """Decodes and tiles. DALI's pipeline is built at the first use in a process, also after a fork.

    device: "cpu", or "mixed" for nvJPEG on the current GPU (never in a forked worker: CUDA does not survive a fork).
    num_threads: of DALI. max_image_pixels: an image that has more is not decoded.
    """

    def __init__(
        self,
        geometry: ImageGeometry,
        max_image_pixels: int,
        device: str = "cpu",
        num_threads: int = 1,
    ) -> None:
        if device not in ("cpu", "mixed"):
            raise DataError(f"decode device {device!r}: expected 'cpu' or 'mixed' (GPU decoding)")
        self.geometry = geometry
        self.device = device
        self.num_threads = num_threads
        self.max_image_pixels = max_image_pixels

    def __call__(self, images: Sequence[bytes], tiling: Sequence[bool]) -> list[torch.Tensor | ImageError]:
        """uint8 tiles [n, C, H, W] of each image, or the ImageError that says what is wrong with it."""
        return self._each(images, lambda index, pixels: make_tiles(pixels, self.geometry, tiling[index]))

    def decode(self, images: Sequence[bytes]) -> list[torch.Tensor | ImageError]:
        """uint8 RGB [C, h, w] of each image, upright, or its ImageError."""
        return self._each(images, lambda index, pixels: pixels.clone())

    def _each(
        self, images: Sequence[bytes], use: Callable[[int, torch.Tensor], torch.Tensor]
    ) -> list[torch.Tensor | ImageError]:
        """`use` of every image's pixels, which are DALI's own memory and gone after the next chunk."""
        results: list[torch.Tensor | ImageError | None] = [None] * len(images)
        headers: dict[int, ImageHeader] = {}
        for index, data in enumerate(images):
            try:
                headers[index] = read_header(data, self.max_image_pixels)
            except ImageError as error:
                results[index] = error
        with_dali = [index for index, header in headers.items() if header.dali]
        others = [index for index, header in headers.items() if not header.dali]
        chunks = [with_dali[start : start + DALI_BATCH] for start in range(0, len(with_dali), DALI_BATCH)]
        for chunk in [*chunks, *([index] for index in others)]:
            encoded = [images[index] for index in chunk]
            pixels = self._decode_dali(encoded) if headers[chunk[0]].dali else [self._decode_pillow(encoded[0])]
            for index, result in zip(chunk, pixels, strict=True):
                if isinstance(result, torch.Tensor):
                    result = _as_promised(apply_orientation(result, headers[index].orientation), headers[index])
                results[index] = use(index, result) if isinstance(result, torch.Tensor) else result
        return results  # type: ignore[return-value]

    def _decode_dali(self, images: list[bytes]) -> list[torch.Tensor | ImageError]:
        try:
            return self._run_dali(images)
        except RuntimeError as error:
            # One corrupt image fails the whole batch and DALI does not say which: ask one by one. The
            # pipeline is not usable after an error.
            _pipelines.pop((self.device, self.num_threads), None)
            if len(images) == 1:
                return [ImageError(f"cannot be decoded ({_first_line(error)})")]
            alone = (self._decode_dali([data])[0] for data in images)
            return [one.clone() if isinstance(one, torch.Tensor) else one for one in alone]

    def _run_dali(self, images: list[bytes]) -> list[torch.Tensor]:
        kind = (self.device, self.num_threads)
        pipeline = _pipelines.get(kind) or _pipelines.setdefault(kind, _build_pipeline(*kind))
        pipeline.feed_input("encoded", [np.frombuffer(data, dtype=np.uint8) for data in images])
        (batch,) = pipeline.run()
        return [torch.from_dlpack(batch[i]).permute(2, 0, 1) for i in range(len(images))]

    def _decode_pillow(self, data: bytes) -> torch.Tensor | ImageError:
        try:
            with pillow_limit(self.max_image_pixels), Image.open(io.BytesIO(data)) as image:
                pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        except Exception as error:  # as in read_header
            return ImageError(f"cannot be decoded ({_first_line(error)})")
        return pixels.cuda() if self.device == "mixed" else pixels


def _as_promised(image: torch.Tensor, header: ImageHeader) -> torch.Tensor | ImageError:
    """Placeholders were counted by the header: pixels of another size would not fit them, and end the run."""
    height, width = image.shape[-2:]
    if (width, height) == (header.width, header.height):
        return image
    return ImageError(f"is {header.width}x{header.height} pixels by its header and {width}x{height} when decoded")


def _build_pipeline(device: str, num_threads: int):
    from nvidia.dali import fn, pipeline_def, types  # half a second; the CLI's help must not pay for it

    device_id = torch.cuda.current_device() if device == "mixed" else None

    @pipeline_def(batch_size=DALI_BATCH, num_threads=num_threads, device_id=device_id, prefetch_queue_depth=1)
    def decode():
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        # Fancy upsampling of chroma is what Pillow, and DALI's own CPU decoder, do; nvJPEG repeats it unless asked.
        return fn.decoders.image(
            encoded, device=device, output_type=types.RGB, adjust_orientation=False, jpeg_fancy_upsampling=True
        )

    pipeline = decode()
    pipeline.build()
    _built[:] = [ref for ref in _built if ref() is not None] + [weakref.ref(pipeline)]
    return pipeline


def _first_line(error: Exception) -> str:
    text = str(error).rpartition("encountered:")[2]  # DALI puts the cause last
    lines = [NO_CAUSE.sub("", line).strip() for line in text.splitlines()]
    cause = next((line[:160] for line in lines if line), "")
    return f"{type(error).__name__}: {cause}" if cause else type(error).__name__
