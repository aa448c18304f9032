"""``python -m benchmarks.images``: CPU time from a 1600x1200 JPEG to normalised tiles, beside transformers' processor.

The peer is transformers' LlavaNextImageProcessor (torchvision backend) on what Pillow decodes, as its users call it.
Both use one thread; both give the 12-tile grid of the paper and the thumbnail.
"""

import argparse
import io

import numpy as np
import torch
from PIL import Image
from skimage import data as photographs

from benchmarks.measure import interleaved, table
from nemo_amalia.config.schema import DataConfig

SIZE, TILE, MEAN, STD = (1600, 1200), 384, [0.5] * 3, [0.5] * 3


def jpegs(number: int, size: tuple[int, int] = SIZE) -> list[bytes]:
    """Photographs that scikit-image carries, scaled to (width, height), quality 90."""
    found = []
    for index in range(number):
        pixels = (photographs.astronaut, photographs.coffee, photographs.chelsea, photographs.rocket)[index % 4]()
        image = Image.fromarray(np.roll(pixels, index * 17, axis=1)).resize(size, Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def main() -> None:
    """Prints CPU-ms an image, the ratio, and the largest difference between the two results in gray levels of 255."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    from transformers import LlavaNextImageProcessor

    from nemo_amalia.data.images.decode import TileMaker, normalise
    from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to

    pinpoints, images = grids_up_to(12, TILE), jpegs(arguments.images)
    maker = TileMaker(ImageGeometry(TILE, 16, pinpoints), DataConfig.max_image_pixels)
    side = {"height": TILE, "width": TILE}
    processor = LlavaNextImageProcessor(
        size=side,
        crop_size=side,
        image_grid_pinpoints=[list(p) for p in pinpoints],
        image_mean=MEAN,
        image_std=STD,
        resample=Image.Resampling.BICUBIC,
    )

    def ours():
        return [normalise(tiles, MEAN, STD) for tiles in maker(images, [True] * len(images))]

    def theirs():
        decoded = [Image.open(io.BytesIO(data)).convert("RGB") for data in images]
        return processor(decoded, return_tensors="pt")["pixel_values"]

    off = max(float((a - b[: len(a)]).abs().max()) * STD[0] * 255 for a, b in zip(ours(), theirs(), strict=True))
    names = {"nemo_amalia: DALI, torchvision": ours, "transformers: Pillow, torchvision": theirs}
    seconds = interleaved(names, arguments.rounds)
    peer = list(seconds.values())[-1]
    rows = [(name, f"{1e3 * s / len(images):.1f}", f"{s / peer:.2f}") for name, s in seconds.items()]
    print(table(("1600x1200 JPEG to tiles", "CPU-ms an image", "ratio"), rows))
    print(f"largest difference: {off:.3f} of 255; medians of {arguments.rounds} rounds of {len(images)} images")


if __name__ == "__main__":
    main()
