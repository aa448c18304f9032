"""Samples -> one picture: the images, below each what is asked and what is answered.

`python -m data_prep.rendering.gallery OUT.png FOLDER ... [each=3] [columns=4]` draws samples of finished data sets,
pictures that differ first (of the samples of one picture, the first).
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from data_prep.rendering import fonts
from data_prep.rendering.wrap import wrap_block
from nemo_amalia.utils.errors import ConfigError, UserError

BACKGROUND, CARD, EDGE, QUESTION, ANSWER = "#e9ebef", "#ffffff", "#cfd4dc", "#1f2933", "#0b5c43"
GAP, PAD = 18, 14  # pixels


def gallery(
    samples: Sequence[Mapping[str, Any]],
    columns: int = 3,
    card: int = 420,
    image_height: int = 300,
    turns: int = 2,
    lines: int = 9,
    size: int = 14,
) -> Image.Image:
    """A contact sheet of samples ({"messages", "images"}), a card each, in columns that end as evenly as they can.

    card: width in pixels. image_height: at most. turns: how many of a conversation are shown. lines: at most, of each
    question and answer. size: of the letters in pixels. Raises ConfigError on no samples.
    """
    if not samples:
        raise ConfigError("a gallery of 0 samples: give at least one")
    cards = [_card(sample, card, image_height, turns, lines, size) for sample in samples]
    cards.sort(key=lambda one: -one.height)  # the columns end more evenly so
    ends = [GAP] * columns
    places = []
    for one in cards:
        column = ends.index(min(ends))
        places.append((GAP + column * (card + GAP), ends[column]))
        ends[column] += one.height + GAP
    sheet = Image.new("RGB", (GAP + columns * (card + GAP), max(ends)), BACKGROUND)
    for one, place in zip(cards, places, strict=True):
        sheet.paste(one, place)
    return sheet


def write_gallery(
    samples: Sequence[Mapping[str, Any]], path: str | Path, most_bytes: int = 400_000, **looks: Any
) -> int:
    """gallery() as a PNG of at most `most_bytes`, of as many colours as that allows; its size in bytes.

    Raises ConfigError where 16 colours are still too many bytes.
    """
    sheet = gallery(samples, **looks)
    for colours in (None, 256, 128, 64, 32, 16):
        data = BytesIO()
        image = sheet if colours is None else sheet.quantize(colours, dither=Image.Dither.NONE)
        image.save(data, "PNG", optimize=True)
        if len(data.getvalue()) <= most_bytes:
            Path(path).write_bytes(data.getvalue())
            return len(data.getvalue())
    raise ConfigError(f"{len(samples)} samples take {len(data.getvalue()):,} bytes: show fewer, or smaller ones")


def _card(sample: Mapping[str, Any], width: int, image_height: int, turns: int, lines: int, size: int) -> Image.Image:
    inner = width - 2 * PAD
    plain, bold = (_font(style, size) for style in ("regular", "bold"))
    rows: list[tuple[str, Any, str]] = []
    for message in sample["messages"][: 2 * turns]:
        asked = message["role"] == "user"
        font, colour = (bold, QUESTION) if asked else (plain, ANSWER)
        rows.extend((line, font, colour) for line in _lines(_text(message["content"]), font, inner, lines))
        rows.append(("", plain, ANSWER))
    pictures = _pictures([Image.open(BytesIO(data)).convert("RGB") for data in sample["images"]], inner, image_height)
    step = round(size * 1.35)
    height = (
        2 * PAD + sum(p.height + 8 for p in pictures) + sum(step if line else step // 2 for line, _, _ in rows[:-1])
    )
    card = Image.new("RGB", (width, height), CARD)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, width - 1, height - 1), outline=EDGE)
    y = PAD
    for picture in pictures:
        card.paste(picture, ((width - picture.width) // 2, y))
        draw.rectangle(
            ((width - picture.width) // 2 - 1, y - 1, (width + picture.width) // 2, y + picture.height), outline=EDGE
        )
        y += picture.height + 8
    for line, font, colour in rows[:-1]:
        draw.text((PAD, y), line, font=font, fill=colour)
        y += step if line else step // 2
    return card


def _pictures(images: list[Image.Image], width: int, height: int) -> list[Image.Image]:
    """One row of them, none larger than it is; empty where there are none."""
    if not images:
        return []
    room = (width - 8 * (len(images) - 1)) / sum(image.width / image.height for image in images)
    tall = min(height, room, min(image.height for image in images))
    scaled = [i.resize((max(1, int(i.width * tall / i.height)), int(tall)), Image.Resampling.LANCZOS) for i in images]
    row = Image.new("RGB", (sum(s.width for s in scaled) + 8 * (len(scaled) - 1), int(tall)), CARD)
    x = 0
    for image in scaled:
        row.paste(image, (x, 0))
        x += image.width + 8
    return [row]


def _lines(text: str, font: Any, width: int, most: int) -> list[str]:
    """A text in lines of a width in pixels; of more than `most` the middle is left out."""
    found: list[str] = []
    for row in text.split("\n"):
        words = row.lstrip(" ")
        indent = " " * (len(row) - len(words))
        if not words:
            found.append(" ")
            continue
        measured = wrap_block(words, 0, width - round(font.getlength(indent)), lambda t: round(font.getlength(t)))
        found.extend(indent + " ".join(line.words) for line in measured)
    return found if len(found) <= most else [*found[: most - 2], "[…]", found[-1]]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content.replace("<image>", "").strip()
    return "".join(part.get("text", "") for part in content if part["type"] == "text").strip()


def _font(style: str, size: int) -> Any:
    return ImageFont.truetype(fonts.family("dejavu_sans").path(style), size, layout_engine=ImageFont.Layout.BASIC)


def samples_of(folder: str | Path) -> Iterator[dict[str, Any]]:
    """{"key", "messages", "images", "language"} of every sample in a folder of shards, in order.

    Raises ConfigError on a folder without shards.
    """
    shards = sorted(Path(folder).glob("*.tar"))
    if not shards:
        raise ConfigError(f"{folder} holds no .tar shard: give the folder that `amalia-data NAME run` wrote")
    for shard in shards:
        found: dict[str, dict[str, Any]] = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                data = tar.extractfile(member).read()
                if suffix == "json":
                    found[key] = {"key": key, "images": []} | json.loads(data)
                else:
                    found[key]["images"].append(data)
        yield from found.values()


def chosen(folder: str | Path, number: int) -> list[dict[str, Any]]:
    """Samples of a folder, evenly spread over it, none with the picture of another."""
    samples = list({b"".join(sample["images"]): sample for sample in samples_of(folder)}.values())
    step = max(1, len(samples) // number)
    return samples[::step][:number]


def main(words: list[str]) -> None:
    """Writes the picture and says how large it is."""
    options = {"each": 3, "columns": 4} | {k: int(v) for k, v in (w.split("=") for w in words[1:] if "=" in w)}
    samples = [sample for word in words[1:] if "=" not in word for sample in chosen(word, options["each"])]
    size = write_gallery(samples, words[0], columns=options["columns"], card=400, image_height=330, lines=24, size=13)
    print(f"{len(samples)} samples, {size:,} bytes -> {words[0]}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
