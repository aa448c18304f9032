"""Text -> a page at print quality, with the record of its lines and words."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from data_prep.config import settings
from data_prep.rendering import fonts, paper
from data_prep.rendering.glyphs import Face, face
from data_prep.rendering.page import Page, around, quads_of
from data_prep.rendering.wrap import WrappedLine, normalise, wrap_block
from data_prep.seeds import choices, weighted
from nemo_amalia.utils.errors import ConfigError, DataError


class CannotRender(DataError):
    """A text that cannot stand on such a page; `reason` is the name to count it under: glyph, overflow or empty."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TextStyle:
    """How a page of text looks. Lengths in pixels.

    height: None fits the page to its text, a number is kept and a longer text refused. align: left, justify, center.
    title: the first paragraph is set in bold and larger. indent: of each paragraph's first line.
    look: a name of conf/data_prep/render.yaml, papers.
    """

    family: str = "dejavu_serif"
    style: str = "regular"
    size: int = 25
    leading: float = 1.4
    width: int = 1240
    height: int | None = None
    margin: int = 110
    align: str = "left"
    columns: int = 1
    indent: int = 0
    title: bool = False
    look: str = "white"

    def __post_init__(self) -> None:
        if self.align not in ("left", "justify", "center"):
            raise ConfigError(f"align={self.align!r}: expected left, justify or center")
        if self.column_width < 8 * self.size:
            raise ConfigError(
                f"a column of {self.column_width} pixels holds no line of {self.size}-pixel letters: "
                "give a wider page, smaller margins or fewer columns"
            )

    @property
    def gap(self) -> int:
        """Between two columns."""
        return 2 * self.size

    @property
    def column_width(self) -> int:
        """Of the text."""
        return (self.width - 2 * self.margin - (self.columns - 1) * self.gap) // self.columns


def render_text(text: str, style: TextStyle, seed: int = 0) -> Page:
    """A page of text. Equal arguments give equal pixels, in every process with the same fonts, Pillow and OpenCV.

    text: paragraphs parted by blank lines, rows by "\\n"; wrap.normalise is applied, and `page.text()` is the result.
    seed: of the paper's grain alone. Raises CannotRender on a text without words, on characters that the font lacks,
    and on one that does not fit `style.height`.
    """
    text = normalise(text)
    if not text:
        raise CannotRender("there is no word to render: drop the record", "empty")
    family = fonts.family(style.family)
    body = face(family.path(style.style), style.size)
    heading = face(family.path("bold"), round(style.size * 1.45)) if style.title else body
    if lacking := fonts.missing_characters(text, body.path):
        raise CannotRender(f"font {style.family} has no glyph for {lacking[:20]!r}: take another font", "glyph")
    lines: list[tuple[WrappedLine, Face]] = []
    for number, block in enumerate(text.split("\n\n")):
        own = heading if number == 0 else body
        indent = 0 if (style.title and number == 0) or "\n" in block else style.indent
        lines += [(line, own) for line in wrap_block(block, number, style.column_width, own.width, indent)]
    return _set(lines, style, seed)


def _set(lines: list[tuple[WrappedLine, Face]], style: TextStyle, seed: int) -> Page:
    places, height = _columns(lines, style)
    ink = np.zeros((style.height or height, style.width), np.uint8)
    words, word_lines, word_boxes, line_boxes = [], [], [], []
    for index, ((line, own), (left, baseline)) in enumerate(zip(lines, places, strict=True)):
        first = len(word_boxes)
        for word, x in zip(line.words, _positions(line, own, style), strict=True):
            box = own.draw(ink, left + x, baseline, word)
            word_boxes.append(box or (left + x, baseline - 1, left + x + 1, baseline))
            words.append(word)
            word_lines.append(index)
        line_boxes.append(around(word_boxes[first:]))
    on = paper.look(style.look)
    image = paper.print_on(ink, on, choices(seed, "grain").getrandbits(20))
    page = Page(
        image,
        tuple(" ".join(line.words) for line, _ in lines),
        tuple(line.joint for line, _ in lines),
        quads_of(line_boxes),
        tuple(words),
        tuple(word_lines),
        quads_of(word_boxes),
    )
    return page if on.window is None else page.moved(0, paper.BAR, paper.window(image, on.window))


def _columns(lines: list[tuple[WrappedLine, Face]], style: TextStyle) -> tuple[list[tuple[int, int]], int]:
    """(left edge, baseline) of each line, and the height that the page needs."""
    heights = []
    for number, (line, own) in enumerate(lines):
        gap = 0.6 * own.size * style.leading if number and line.joint == "\n\n" else 0.0
        heights.append((gap, own.size * style.leading))
    total = sum(gap + own for gap, own in heights)
    if style.height is not None:
        room = float(style.height - 2 * style.margin)
    else:
        tallest = max(gap + own for gap, own in heights)
        room = total if style.columns == 1 else total / style.columns + tallest
    places, column, y, deepest = [], 0, 0.0, 0.0
    for (_, own), (gap, step) in zip(lines, heights, strict=True):
        if y and y + gap + step > room + 0.5:
            column, y = column + 1, 0.0
        y += gap if y else 0.0
        places.append((style.margin + column * (style.column_width + style.gap), style.margin + round(y) + own.ascent))
        y += step
        deepest = max(deepest, y)
    if column >= style.columns or deepest > room + 0.5:
        raise CannotRender(f"{len(lines)} lines do not fit {style.height} pixels: give a larger page", "overflow")
    return places, 2 * style.margin + int(deepest) + 1


def _positions(line: WrappedLine, own: Face, style: TextStyle) -> list[int]:
    """x of each word from the column's left edge."""
    space = float(own.width(" "))
    widths = [own.width(word) for word in line.words]
    free = style.column_width - line.indent - sum(widths) - space * (len(widths) - 1)
    x = float(line.indent)
    if style.align == "center" and line.indent == 0:
        x += max(free, 0) / 2
    elif style.align == "justify" and not line.last and len(widths) > 1 and free > 0:
        space += free / (len(widths) - 1)
    places = []
    for width in widths:
        places.append(round(x))
        x += width + space
    return places


def draw_style(rng: Random, families: list[fonts.Family], text: str = "", width: int | None = None) -> TextStyle:
    """A style drawn from conf/data_prep/render.yaml. text: what it is for (columns and a title ask for plain
    paragraphs). width: of the page, drawn where it is None.
    """
    values: dict[str, Any] = settings("render")["page"]
    width = width or rng.randint(*values["width"])
    size = rng.choice(values["size"])
    blocks = text.split("\n\n")
    rows = "\n" in text.replace("\n\n", "")
    columns = weighted(rng, values["columns"]) if width >= 1000 and len(text) > 900 and not rows else 1
    chosen = rng.choice([f for f in families if f.kind in values["kinds"]] or families)
    return TextStyle(
        family=chosen.name,
        style=rng.choices(("regular", "bold", "italic"), (10, 1, 1))[0],
        size=size if columns == 1 else min(size, 22),
        leading=rng.uniform(*values["leading"]),
        width=width,
        margin=round(width * rng.uniform(*values["margin"])),
        align=weighted(rng, values["align"]),
        columns=columns,
        indent=round(size * rng.uniform(*values["indent"])) if rng.random() < 0.5 else 0,
        title=len(blocks) > 1 and len(blocks[0]) <= 60,
        look=weighted(rng, {name: entry["weight"] for name, entry in settings("render")["papers"].items()}),
    )
