"""Our tiles against transformers' LlavaNextImageProcessor (torchvision backend).

Tolerance: one gray level of 255 per pixel is what the issue allows. Decoding is bit-equal (the same codec
libraries) and the resize is the same torchvision call on the same uint8 pixels, so we ask for 0 gray levels
before normalisation; after it, 1e-6 for float32 arithmetic in another order.
"""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaNextImageProcessor
from transformers.image_utils import load_image

from nemo_amalia.config.schema import DataConfig
from nemo_amalia.data.images.decode import TileMaker, normalise
from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to

TILE = 384
PINPOINTS = grids_up_to(12, TILE)
MEAN, STD = [0.5, 0.4, 0.6], [0.5, 0.3, 0.25]


@pytest.fixture(scope="module")
def processor():
    return LlavaNextImageProcessor(
        size={"height": TILE, "width": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=[list(pinpoint) for pinpoint in PINPOINTS],
        image_mean=MEAN,
        image_std=STD,
        resample=Image.Resampling.BICUBIC,
    )


@pytest.fixture(scope="module")
def maker():
    return TileMaker(ImageGeometry(TILE, 16, PINPOINTS), DataConfig.max_image_pixels)


def encoded(width, height, kind, **options):
    rng = np.random.default_rng(width * 10_000 + height)
    coarse = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    base = np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC)).astype(np.int16)
    pixels = (base + rng.integers(-30, 31, base.shape)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


SIZES = [(384, 384), (640, 480), (1600, 1200), (333, 1001), (97, 41), (3000, 120), (11, 700), (1151, 769)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_tiles_equal_transformers(processor, maker, size, kind):
    data = encoded(*size, kind)
    tiles = normalise(*maker([data], [True]), MEAN, STD)
    image = load_image(Image.open(io.BytesIO(data)))
    reference = processor(image, return_tensors="pt")
    assert reference["image_sizes"].tolist() == [[size[1], size[0]]]
    expected = reference["pixel_values"][0]
    assert tiles.shape == expected.shape
    torch.testing.assert_close(tiles, expected, atol=1e-6, rtol=0)
    scale = (torch.tensor(STD) * 255).view(1, 3, 1, 1)
    gray_levels = (tiles * scale - expected * scale).abs().max().item()
    assert gray_levels < 0.01  # one differing uint8 would be 1


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_a_rotated_photograph_is_turned_as_transformers_turns_it(processor, maker, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(500, 300, "JPEG", exif=exif)
    image = load_image(Image.open(io.BytesIO(data)))
    tiles = normalise(*maker([data], [True]), MEAN, STD)
    torch.testing.assert_close(tiles, processor(image, return_tensors="pt")["pixel_values"][0], atol=1e-6, rtol=0)


def test_the_thumbnail_alone_is_the_first_tile(maker):
    data = encoded(640, 480, "JPEG")
    tiled, thumbnail = maker([data, data], [True, False])
    assert torch.equal(tiled[:1], thumbnail)
