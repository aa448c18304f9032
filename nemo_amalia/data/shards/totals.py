"""What a folder of shards adds up to, written beside its index: `.nv-meta/amalia.json`.

Nothing in it depends on a model: samples, turns, characters, images and how large they are. Image tokens follow from
the sizes by data/images/geometry.py, whatever the tiles; text tokens are estimated from characters until `scan` has
counted them with a tokenizer.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_amalia.data.images.geometry import ImageGeometry
from nemo_amalia.data.images.headers import ImageError, read_header
from nemo_amalia.data.messages import IMAGE
from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.files import read_json, write_json

if TYPE_CHECKING:
    from nemo_amalia.data.encoding.chat import ChatFormat
    from nemo_amalia.data.samples import ConversationSample

VERSION = 1
FILE = Path(".nv-meta") / "amalia.json"
INDEX = Path(".nv-meta") / ".info.json"
MAX_SIZES = 1024  # 20 KB of JSON, and 0.1 s of arithmetic a data set


@dataclass
class ImageSizes:
    """How many images have which (width, height), in pixels, upright, in at most MAX_SIZES entries.

    Where there are more sizes, both sides are counted in steps of 2, 4, 8, ... pixels and stand for the middle of their
    step. The step depends on the set of sizes alone, not on their order.
    """

    step: int = 1
    counts: Counter[tuple[int, int]] = field(default_factory=Counter)  # (side - 1) // step of both sides

    def add(self, width: int, height: int, number: int = 1) -> None:
        """Counts `number` images of one size."""
        self.counts[(width - 1) // self.step, (height - 1) // self.step] += number
        while len(self.counts) > MAX_SIZES:
            coarser: Counter[tuple[int, int]] = Counter()
            for (column, row), count in self.counts.items():
                coarser[column // 2, row // 2] += count
            self.step, self.counts = self.step * 2, coarser

    def items(self) -> Iterator[tuple[int, int, int]]:
        """(width, height, number), exact where step is 1, the middle of the step elsewhere."""
        middle = (self.step + 1) // 2
        for (column, row), number in sorted(self.counts.items()):
            yield column * self.step + middle, row * self.step + middle, number


@dataclass
class Totals:
    """Sums over a data set.

    images: all; unreadable_images: those that training refuses (read_header says why), of no known size.
    characters: of the text in messages, placeholders left out. turns: messages.
    text_tokens: all tokens but the images', the chat template's included; None where nobody counted. tokenizer: by
    which they were counted. refused: samples that `scan` found unfit, by reason; they are not in text_tokens.
    """

    samples: int = 0
    images: int = 0
    unreadable_images: int = 0
    turns: int = 0
    characters: int = 0
    sizes: ImageSizes = field(default_factory=ImageSizes)
    text_tokens: int | None = None
    tokenizer: str = ""
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, messages: Sequence[Mapping[str, Any]], images: Sequence[bytes], max_image_pixels: int) -> None:
        """Counts one sample."""
        self.samples += 1
        for message in messages if isinstance(messages, list | tuple) else ():
            self.turns += 1
            self.characters += _characters(message.get("content") if isinstance(message, Mapping) else None)
        for data in images:
            self.images += 1
            try:
                header = read_header(data, max_image_pixels)
            except ImageError:
                self.unreadable_images += 1
            else:
                self.sizes.add(header.width, header.height)

    def image_tokens(self, geometry: ImageGeometry, tiling: bool) -> int:
        """Tokens of all readable images; exact where sizes.step is 1 (65 us a size that is met the first time)."""
        return sum(number * geometry.num_tokens(width, height, tiling) for width, height, number in self.sizes.items())

    def write(self, folder: Path) -> None:
        """Beside the index of a prepared folder."""
        counts = {f"{width}x{height}": number for width, height, number in self.sizes.items()}
        content = {
            "version": VERSION,
            "samples": self.samples,
            "turns": self.turns,
            "characters": self.characters,
            "images": self.images,
            "unreadable_images": self.unreadable_images,
            "size_step": self.sizes.step,
            "sizes": counts,
            "text_tokens": self.text_tokens,
            "tokenizer": self.tokenizer,
            "refused": dict(self.refused),
        }
        write_json(folder / FILE, content)


def _characters(content: Any) -> int:
    if isinstance(content, str):
        return len(content) - content.count(IMAGE) * len(IMAGE)
    parts = content if isinstance(content, list | tuple) else ()
    texts = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") == "text"]
    return sum(len(text) for text in texts if isinstance(text, str))


def shard_counts(folder: Path) -> dict[str, int]:
    """Samples of each shard, from Energon's index alone. Raises DataError where that cannot be read."""
    try:
        counts = read_json(folder / INDEX)["shard_counts"]
        return {str(name): int(number) for name, number in counts.items()}
    except (DataError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{folder} has no readable index {INDEX} ({type(error).__name__}): prepare it again") from error


def read_totals(folder: Path) -> Totals | None:
    """What amalia.json says, or None where there is none, or where its samples are not the index's (shards came later).

    Raises DataError on a file that is not ours.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        if content.pop("version") != VERSION:
            return None
        sizes = ImageSizes(content.pop("size_step"))
        for name, number in content.pop("sizes").items():
            width, height = (int(side) for side in name.split("x"))
            sizes.add(width, height, number)
        totals = Totals(**content | {"sizes": sizes, "refused": Counter(content["refused"])})
    except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error!r}): remove it and add scan=true") from error
    return totals if totals.samples == sum(shard_counts(folder).values()) else None


def scan(folder: Path, chat: ChatFormat | None = None, tokenizer: str = "", *, max_image_pixels: int) -> Totals:
    """Reads every shard of a prepared folder and writes its totals; with `chat`, text tokens are counted too.

    tokenizer: the name that is noted beside the count. As slow as reading the shards, and tokenising. Samples that
    cannot be read or tokenised are counted in `refused` by reason, as training would drop them. Raises DataError on a
    shard that is no tar or that holds other numbers than the index says.
    """
    from nemo_amalia.data.encoding.cookers import cook_either
    from nemo_amalia.data.samples import BadSampleError

    totals = Totals(text_tokens=0 if chat else None, tokenizer=tokenizer if chat else "")
    for shard, expected in shard_counts(folder).items():
        before = totals.samples
        try:
            for record in _records(folder / shard):
                try:
                    sample = cook_either(record)
                except BadSampleError as error:
                    totals.samples += 1
                    totals.refused[error.reason] += 1
                    continue
                conversations = sample.conversations
                messages = conversations[0].messages[: conversations[0].prompt_turns or None]  # of a pair the prompt
                totals.add(messages, sample.images, max_image_pixels)
                if chat:
                    _count(totals, chat, conversations)
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"shard {folder / shard} cannot be read ({error}): make this data set again") from error
        if totals.samples - before != expected:
            raise DataError(f"{folder / shard} holds {totals.samples - before} samples, its index says {expected}")
    totals.write(folder)
    return totals


def _records(shard: Path) -> Iterator[dict[str, Any]]:
    """What Energon would hand to the cooker: {"__key__", suffix: bytes}; files of one key are neighbours."""
    record: dict[str, Any] = {}
    with tarfile.open(shard, "r|") as tar:
        for member in tar:
            if not member.isfile():
                continue
            directory, slash, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            key = directory + slash + stem
            if record and record["__key__"] != key:
                yield record
                record = {}
            record |= {"__key__": key, suffix: tar.extractfile(member).read()}
    if record:
        yield record


def _count(totals: Totals, chat: ChatFormat, conversations: Sequence[ConversationSample]) -> None:
    """The text tokens of a sample: of its conversation, or of both answers of a pair, each with the prompt."""
    from nemo_amalia.data.samples import BadSampleError

    images = [1] * len(conversations[0].images)  # one token an image, taken off again
    try:
        lengths = [len(chat.encode(each.messages, images, each.key, each.prompt_turns)[0]) for each in conversations]
    except BadSampleError as error:
        totals.refused[error.reason] += 1
    else:
        totals.text_tokens += sum(lengths) - len(images) * len(lengths)
