"""Compressed bytes -> normalised tiles.

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
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from nemo_amalia.data.image_geometry import ImageGeometry
from nemo_amalia.data.image_headers import MAX_PIXELS, ImageError, ImageHeader, pillow_limit, read_header

DALI_BATCH = 64

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
    """uint8 [C, h, w] -> uint8 tiles [n, C, H, W], thumbnail first, then the grid row by row."""
    height, width = image.shape[-2:]
    tile = geometry.tile
    thumbnail = _resize(image, (tile, tile))[None]
    if not tiling:
        return thumbnail
    canvas_height, canvas_width = geometry.canvas(width, height)
    fitted_height, fitted_width = geometry.fitted(width, height)
    # The odd pixel of padding goes to the right and to the bottom, as in _get_padding_size.
    top, left = (canvas_height - fitted_height) // 2, (canvas_width - fitted_width) // 2
    canvas = image.new_zeros((3, canvas_height, canvas_width))
    canvas[:, top : top + fitted_height, left : left + fitted_width] = _resize(image, (fitted_height, fitted_width))
    rows, columns = canvas_height // tile, canvas_width // tile
    grid = canvas.view(3, rows, tile, columns, tile).permute(1, 3, 0, 2, 4).reshape(-1, 3, tile, tile)
    return torch.cat([thumbnail, grid])


def _resize(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return tv.resize(image, list(size), interpolation=tv.InterpolationMode.BICUBIC, antialias=True)


class TileMaker:
    """Decodes, tiles and normalises. DALI's pipeline is built at the first use in a process, also after a
    fork.

    mean, std: of each channel, for pixels scaled to 0..1. device: "cpu", or "mixed" for nvJPEG on the
    current GPU (never in a forked worker: CUDA does not survive a fork). num_threads: of DALI. max_pixels: of an
    image; one that has more is not decoded.
    """

    def __init__(
        self,
        geometry: ImageGeometry,
        mean: Sequence[float],
        std: Sequence[float],
        device: str = "cpu",
        num_threads: int = 1,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if device not in ("cpu", "mixed"):
            raise ValueError(f"decode device {device!r}: expected 'cpu' or 'mixed' (GPU decoding)")
        self.geometry = geometry
        self.mean, self.std = tuple(mean), tuple(std)
        self.device = device
        self.num_threads = num_threads
        self.max_pixels = max_pixels

    def __call__(self, images: Sequence[bytes], tiling: Sequence[bool]) -> list[torch.Tensor | ImageError]:
        """float32 tiles [n, C, H, W] of each image, or the ImageError that says what is wrong with it."""
        results: list[torch.Tensor | ImageError] = []
        for decoded, on in zip(self.decode(images), tiling, strict=True):
            if isinstance(decoded, torch.Tensor):
                decoded = self.normalise(make_tiles(decoded, self.geometry, on))
            results.append(decoded)
        return results

    def normalise(self, tiles: torch.Tensor) -> torch.Tensor:
        """uint8 -> float32, (x / 255 - mean) / std in transformers' fused order."""
        mean, std = (
            (torch.tensor(values, device=tiles.device) * 255.0).view(-1, 1, 1) for values in (self.mean, self.std)
        )
        return tiles.float().sub_(mean).div_(std)

    def decode(self, images: Sequence[bytes]) -> list[torch.Tensor | ImageError]:
        """uint8 RGB [C, h, w] of each image, upright, or its ImageError."""
        results: list[torch.Tensor | ImageError | None] = [None] * len(images)
        headers: dict[int, ImageHeader] = {}
        for index, data in enumerate(images):
            try:
                headers[index] = read_header(data, self.max_pixels)
            except ImageError as error:
                results[index] = error
        with_dali = [index for index, header in headers.items() if header.dali]
        for start in range(0, len(with_dali), DALI_BATCH):
            chunk = with_dali[start : start + DALI_BATCH]
            for index, pixels in zip(chunk, self._decode_dali([images[i] for i in chunk]), strict=True):
                results[index] = pixels
        for index, header in headers.items():
            if not header.dali:
                results[index] = self._decode_pillow(images[index])
            if isinstance(results[index], torch.Tensor):
                results[index] = _as_promised(apply_orientation(results[index], header.orientation), header)
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
            return [self._decode_dali([data])[0] for data in images]

    def _run_dali(self, images: list[bytes]) -> list[torch.Tensor]:
        kind = (self.device, self.num_threads)
        pipeline = _pipelines.get(kind) or _pipelines.setdefault(kind, _build_pipeline(*kind))
        pipeline.feed_input("encoded", [np.frombuffer(data, dtype=np.uint8) for data in images])
        (batch,) = pipeline.run()
        # DALI uses its buffers again: copy. HWC -> CHW.
        return [torch.from_dlpack(batch[i]).permute(2, 0, 1).contiguous().clone() for i in range(len(images))]

    def _decode_pillow(self, data: bytes) -> torch.Tensor | ImageError:
        try:
            with pillow_limit(self.max_pixels), Image.open(io.BytesIO(data)) as image:
                pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
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
        return fn.decoders.image(encoded, device=device, output_type=types.RGB, adjust_orientation=False)

    pipeline = decode()
    pipeline.build()
    _built[:] = [ref for ref in _built if ref() is not None] + [weakref.ref(pipeline)]
    return pipeline


def _first_line(error: Exception) -> str:
    text = str(error).rpartition("encountered:")[2]  # DALI puts the cause last
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
