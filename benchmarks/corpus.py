"""What the loader benchmarks read: shards of photographs with questions, in sizes that data sets of the mix have.

Settings are the paper's: tiles of 384, patches of 16, up to 12 tiles, packs of 16,384 tokens. Tokenizer: the demo's.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from skimage import data as photographs

from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to
from nemo_amalia.data.shards.write import write_shards

if TYPE_CHECKING:
    from nemo_amalia.data.encoding.hf_folder import ModelFormat
    from nemo_amalia.data.settings import StreamSettings

TILE, PATCH, TOKENS = 384, 16, 16384
PINPOINTS = grids_up_to(12, TILE)
GEOMETRY = ImageGeometry(TILE, PATCH, PINPOINTS)
MEAN, STD = [0.5] * 3, [0.5] * 3
# (width, height): COCO's, a web photograph's, a page's, a camera's; None: text alone.
SIZES = ((640, 480), (480, 640), (640, 427), (1024, 768), (1240, 1754), (1600, 1200), None)
WEIGHTS = (30, 15, 15, 15, 8, 7, 10)
TWO_MEGAPIXELS = (1632, 1224)
WORDS = "o azulejo mostra um barco no rio junto à ponte e duas pessoas que esperam pelo elétrico na paragem".split()


def jpeg(size: tuple[int, int], number: int) -> bytes:
    """A photograph that scikit-image carries, cut anew for each number, at quality 90."""
    draw = random.Random(number)
    pixels = (photographs.astronaut, photographs.coffee, photographs.chelsea, photographs.rocket)[number % 4]()
    image = Image.fromarray(pixels)
    left, top = (draw.randrange(side // 4) for side in image.size)
    image = image.crop((left, top, left + image.width * 3 // 4, top + image.height * 3 // 4))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def samples(number: int, size: tuple[int, int] | None = None) -> Iterator[dict[str, Any]]:
    """Conversations of one image or none; size: of all images, instead of the mix of SIZES."""
    draw = random.Random(0)
    for index in range(number):
        chosen = size or draw.choices(SIZES, WEIGHTS)[0]
        content = [{"type": "image"}] if chosen else []
        messages = []
        for _ in range(draw.randint(1, 4)):
            question, answer = (
                " ".join(draw.choices(WORDS, k=draw.randint(low, high))) for low, high in ((5, 20), (5, 120))
            )
            messages.append({"role": "user", "content": [*content, {"type": "text", "text": question}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
            content = []
        images = [jpeg(chosen, index)] if chosen else []
        yield {"key": f"s-{index:06d}", "messages": messages, "images": images, "source": "fotos", "language": "pt"}


def write(folder: Path, number: int, size: tuple[int, int] | None = None) -> Path:
    """Shards of `number` samples, for both the loader and its peers."""
    return write_shards(samples(number, size), folder, 100).folder


def tokenizer() -> Any:
    """The demo's, with <image>."""
    from transformers import AutoTokenizer

    from nemo_amalia.bridge.vocabulary import place_image_token

    found = AutoTokenizer.from_pretrained(Path(__file__).parents[1] / "demo" / "base" / "decoder")
    place_image_token(found, len(found))
    return found


def stream(**data: Any) -> tuple[StreamSettings, ModelFormat]:
    """The settings and the format of build_loader: one pass over the data, in packs. data: keys of conf/data."""
    from nemo_amalia.config.schema import DataConfig, RunConfig
    from nemo_amalia.data.encoding.chat import ChatFormat
    from nemo_amalia.data.encoding.hf_folder import ModelFormat
    from nemo_amalia.data.settings import StreamSettings

    settings = StreamSettings(
        data=DataConfig(**data),
        sample_kind="conversations",
        seq_length=TOKENS,
        micro_batch_size=1,
        tiling=True,
        packing=True,
        segment_multiple=1,
        seed=RunConfig.seed,
        repeat=False,
    )
    return settings, ModelFormat(ChatFormat(tokenizer()), GEOMETRY, MEAN, STD)
