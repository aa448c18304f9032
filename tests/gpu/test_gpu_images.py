"""DALI's ``mixed`` decoder (nvJPEG) against its ``cpu`` one (libjpeg-turbo): pixels within 1 of 255.

Two inverse cosine transforms and two colour conversions, each rounded once to 8 bits, both with the same upsampling of
chroma (images.py asks for it). Without that, edges of colour differ by tens.
"""

import pytest
from gpu_ranks import start

from nemo_amalia.config.schema import DataConfig


def pictures() -> dict[str, bytes]:
    """Photographs as JPEG with and without subsampled chroma, grey and progressive, and PNG, by name."""
    import io

    from PIL import Image
    from skimage import data

    photo = Image.fromarray(data.astronaut())
    kinds = {
        "4:2:0": dict(format="JPEG", quality=85, subsampling=2),
        "4:4:4": dict(format="JPEG", quality=85, subsampling=0),
        "odd sizes": dict(format="JPEG", quality=85, subsampling=2),
        "progressive": dict(format="JPEG", quality=85, progressive=True),
        "png": dict(format="PNG"),
    }
    found = {}
    for name, options in kinds.items():
        file, image = io.BytesIO(), photo.crop((0, 0, 333, 251)) if name == "odd sizes" else photo
        image.save(file, **options)
        found[name] = file.getvalue()
    file = io.BytesIO()
    photo.convert("L").save(file, "JPEG", quality=85)
    return found | {"grey": file.getvalue()}


def decode() -> dict:
    """Of each picture: the largest difference, and on which devices the pixels were."""
    from nemo_amalia.data.images.decode import TileMaker
    from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to

    found, images = {}, pictures()
    geometry = ImageGeometry(384, 16, tuple(grids_up_to(12, 384)))
    on_cpu, on_gpu = (
        TileMaker(geometry, DataConfig.max_image_pixels, device).decode(list(images.values()))
        for device in ("cpu", "mixed")
    )
    for name, one, other in zip(images, on_cpu, on_gpu, strict=True):
        assert one.shape == other.shape, name
        found[name] = [int((one.int() - other.cpu().int()).abs().max()), other.device.type, float(one.float().std())]
    return found


@pytest.mark.gpu(cuda_only=True)
def test_mixed_decodes_as_the_cpu_does():
    [found] = start("test_gpu_images.py", "decode", 1, {})
    assert len(found) == 6
    for name, (difference, device, spread) in found.items():
        assert device == "cuda" and spread > 10 and difference <= 1, (name, difference)


def test_the_pictures_decode_on_a_cpu():
    """The part of this file that needs no GPU."""
    from nemo_amalia.data.images.decode import TileMaker
    from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to

    images = pictures()
    decoded = TileMaker(ImageGeometry(384, 16, tuple(grids_up_to(12, 384))), DataConfig.max_image_pixels).decode(
        list(images.values())
    )
    shapes = {name: tuple(one.shape) for name, one in zip(images, decoded, strict=True)}
    assert shapes == {name: (3, 251, 333) if name == "odd sizes" else (3, 512, 512) for name in images}
