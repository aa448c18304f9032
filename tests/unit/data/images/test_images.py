import io

import numpy as np
import pytest
import torch
from chatml import picture
from PIL import Image, ImageOps
from streams import PIXELS

from nemo_amalia.data.images.decode import TileMaker, _as_promised, make_tiles, normalise
from nemo_amalia.data.images.geometry import ImageGeometry
from nemo_amalia.data.images.headers import ImageError, read_header
from nemo_amalia.utils.errors import UserError


@pytest.fixture(scope="module")
def maker():
    return TileMaker(ImageGeometry(32, 8, ((32, 64), (64, 32), (64, 64))), PIXELS)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow(data):
    """What transformers' load_image makes of the bytes."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def sources():
    base = Image.open(io.BytesIO(picture(90, 61, 1, "PNG")))
    yield from ((kind, saved(base, kind)) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"))
    yield "progressive", saved(base, "JPEG", progressive=True)
    yield "gray", saved(base.convert("L"), "JPEG")
    yield "cmyk", saved(base.convert("CMYK"), "JPEG")
    yield "palette", saved(base.convert("P"), "PNG")
    yield "gray-alpha", saved(base.convert("LA"), "PNG")
    alpha = base.copy()
    alpha.putalpha(base.convert("L"))
    yield "alpha", saved(alpha, "PNG")
    for kind in ("JPEG", "PNG", "WEBP"):
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            yield f"{kind}-{orientation}", saved(base, kind, exif=exif)
    for orientation in range(1, 9):
        yield f"TIFF-{orientation}", saved(base, "TIFF", tiffinfo={0x0112: orientation})


def test_every_format_and_orientation_decodes_as_transformers_loads_it(maker):
    named = dict(sources())
    for (name, data), pixels in zip(named.items(), maker.decode(list(named.values())), strict=True):
        header = read_header(data, PIXELS)
        assert (header.height, header.width) == tuple(pixels.shape[1:]), name
        # Bit-equal: DALI and Pillow both decode with libjpeg-turbo, libpng and libwebp.
        assert torch.equal(pixels, pillow(data)), name


def truncated_with_thumbnail():
    """A truncated JPEG whose EXIF thumbnail brings an end marker of its own."""
    data = picture(90, 61, 2)
    thumbnail = b"Exif\x00\x00" + picture(16, 12, 3)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    return (data[:2] + segment + data[2:])[:-200]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "no image format recognises"),
        (b"not an image", "no image format recognises"),
        (picture(90, 61)[:-200], "JPEG of .* has no end"),
        (truncated_with_thumbnail(), "has no end"),
        (saved(Image.new("RGB", (9, 9)), "EPS"), "EPS is a program"),
        (picture(90, 61, kind="PNG")[:-30], "PNG of .* has no end"),
        (saved(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"), "would be clipped"),
    ],
)
def test_unusable_images_are_refused_from_the_header(data, text):
    with pytest.raises(ImageError, match=text):
        read_header(data, PIXELS)


def corrupt_png():
    data = bytearray(picture(90, 61, 5, "PNG"))
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    return bytes(data)


def test_corrupt_images_are_named_and_the_others_of_the_batch_survive(maker):
    good = [picture(90, 61, seed) for seed in range(3)]
    broken_gif = saved(Image.new("RGB", (9, 9)), "GIF")[:20]
    results = maker.decode([good[0], corrupt_png(), good[1], broken_gif, good[2]])
    assert isinstance(results[1], ImageError) and "cannot be decoded" in str(results[1])
    assert isinstance(results[3], ImageError)
    for data, pixels in zip(good, (results[0], results[2], results[4]), strict=True):
        assert torch.equal(pixels, pillow(data))
    assert torch.equal(maker.decode(good)[0], pillow(good[0]))  # the pipeline recovers


def test_pixels_of_another_size_than_the_header_are_refused():
    # No such file is known to us; the collator would end the run on one.
    header, pixels = read_header(picture(90, 61), PIXELS), torch.zeros(3, 61, 90)
    assert _as_promised(pixels, header) is pixels
    result = _as_promised(torch.zeros(3, 90, 61), header)
    assert isinstance(result, ImageError) and "90x61 pixels by its header and 61x90 when decoded" in str(result)


def test_a_pipeline_survives_garbage_collection_in_a_forked_child(maker):
    # DALI's __del__ waits for threads that a fork does not copy: without our hook the child never ends.
    import gc
    import multiprocessing

    data = picture(40, 40)
    maker.decode([data])

    def child():
        gc.collect()
        raise SystemExit(0 if torch.equal(maker.decode([data])[0], pillow(data)) else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    alive = process.is_alive()
    if alive:
        process.kill()
    assert not alive and process.exitcode == 0


def test_sixteen_bits_a_channel_go_through_pillow(maker):
    # IHDR says 16 bits, RGB: Pillow keeps the high byte.
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\x00" + struct.pack(">HHH", 0x1234, 0xABCD, 0xFFFF) * 4
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(row * 2)) + chunk(b"IEND", b"")
    assert not read_header(data, PIXELS).dali
    assert maker.decode([data])[0][:, 0, 0].tolist() == [0x12, 0xAB, 0xFF]


def test_tiles_are_the_thumbnail_then_the_grid_row_by_row():
    geometry = ImageGeometry(32, 8, ((64, 64),))
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    for number, (top, left) in enumerate(((0, 0), (0, 32), (32, 0), (32, 32))):
        image[:, top : top + 32, left : left + 32] = 50 * (number + 1)
    tiles = make_tiles(image, geometry, tiling=True)
    assert tiles.shape == (5, 3, 32, 32)
    assert [tile.unique().tolist() for tile in tiles[1:]] == [[50], [100], [150], [200]]
    assert torch.equal(make_tiles(image, geometry, tiling=False), tiles[:1])


def test_pixels_are_scaled_and_normalised(maker):
    (tiles,) = maker([saved(Image.new("RGB", (64, 64), (0, 255, 51)), "PNG")], [True])
    assert tiles.dtype == torch.uint8
    tiles = normalise(tiles, [0.5] * 3, [0.5] * 3)
    # 51 / 255 = 0.2; float32 arithmetic on three operations.
    torch.testing.assert_close(tiles[0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]), atol=1e-6, rtol=0)


def test_an_unknown_device_is_refused():
    with pytest.raises(UserError, match="decode device 'gpu'"):
        TileMaker(ImageGeometry(32, 8, ((32, 32),)), PIXELS, device="gpu")
