"""Code -> an image as an editor shows it, with the record of its lines and words."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import cv2
import numpy as np

from data_prep.config import settings
from data_prep.rendering import fonts, paper
from data_prep.rendering.glyphs import Face, face
from data_prep.rendering.page import Box, Page, around, quads_of
from data_prep.rendering.text import CannotRender
from nemo_amalia.utils.errors import ConfigError

Cell = tuple[str, int]  # a character and the number of its colours in Theme.colours


@dataclass(frozen=True, slots=True)
class CodeStyle:
    """How code looks. size, padding, max_width in pixels. theme: a Pygments style. window: under a window's bar.

    line_numbers stand in the gutter and are no part of the record. Lines wider than max_width are wrapped; a hook
    marks what continues.
    """

    family: str = "dejavu_mono"
    size: int = 22
    leading: float = 1.3
    theme: str = "default"
    line_numbers: bool = False
    window: bool = False
    padding: int = 28
    max_width: int = 1240


@dataclass(frozen=True, slots=True)
class Theme:
    """background, muted: RGB. colours: (RGB, font style) of kinds of token; numbers: token -> its place there."""

    background: tuple[int, int, int]
    muted: tuple[int, int, int]
    colours: tuple[tuple[tuple[int, int, int], str], ...]
    numbers: dict[object, int]


def normalise_code(code: str) -> str:
    """The code that an image can show: NFC, tabs as four columns, no blanks at ends of lines, no empty lines around."""
    lines = [line.expandtabs(4).rstrip() for line in unicodedata.normalize("NFC", code).splitlines()]
    return "\n".join(lines).strip("\n")


def render_code(code: str, language: str, style: CodeStyle, seed: int = 0) -> Page:
    """An image of code, [H, W, 3]. Equal arguments give equal pixels; nothing is drawn by chance (seed is for symmetry
    with render_text).

    language: a Pygments name ("python", "text"). `page.text()` is normalise_code(code), wrapped lines joined again.
    Raises CannotRender on code without a visible character and on characters that the font lacks; ValueError on an
    unknown language or theme.
    """
    code = normalise_code(code)
    if not code.strip():
        raise CannotRender("there is no character to render: drop the record", "empty")
    family = fonts.family(style.family)
    if family.kind != "mono":
        raise ConfigError(f"font family {style.family} is {family.kind}: code needs one of kind mono")
    faces = {name: face(family.path(name), style.size) for name in fonts.STYLES}
    if lacking := fonts.missing_characters(code, faces["regular"].path):
        raise CannotRender(f"font {style.family} has no glyph for {lacking[:20]!r}: take another font", "glyph")
    colours = theme(style.theme)
    rows = _coloured(code, language, colours)
    cell = faces["regular"].width("0")
    gutter = (len(str(len(rows))) + 2) * cell if style.line_numbers else 0
    fits = (style.max_width - 2 * style.padding - gutter) // cell
    if fits < 8:
        raise ConfigError(f"max_width={style.max_width} holds {fits} columns of code: give at least 8")
    return _drawn(_wrapped(rows, fits), colours, faces, style, gutter)


@lru_cache(maxsize=64)
def theme(name: str) -> Theme:
    """A Pygments style as colours. Raises ConfigError on one that Pygments does not have."""
    from pygments.styles import get_style_by_name
    from pygments.util import ClassNotFound

    try:
        style = get_style_by_name(name)
    except ClassNotFound:
        raise ConfigError(f"unknown theme {name!r}: conf/data_prep/render.yaml lists some that Pygments has") from None
    background = _rgb(style.background_color)
    plain = (240, 240, 240) if sum(background) < 3 * 128 else (20, 20, 20)
    colours: list[tuple[tuple[int, int, int], str]] = []
    numbers: dict[object, int] = {}
    for token, values in style:
        colour = _rgb(values["color"]) if values["color"] else plain
        kind = {(1, 0): "bold", (0, 1): "italic", (1, 1): "bold_italic"}.get(
            (int(values["bold"]), int(values["italic"])), "regular"
        )
        if (colour, kind) not in colours:
            colours.append((colour, kind))
        numbers[token] = colours.index((colour, kind))
    muted = tuple((2 * b + p) // 3 for b, p in zip(background, plain, strict=True))
    return Theme(background, muted, tuple(colours), numbers)


def _rgb(colour: str) -> tuple[int, int, int]:
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    return tuple(int(digits[i : i + 2], 16) for i in (0, 2, 4))


@lru_cache(maxsize=64)
def _lexer(language: str):
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:  # Pygments would strip empty lines and add one
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        raise ConfigError(f"unknown language {language!r}: expected a Pygments name, such as python or text") from None


def _coloured(code: str, language: str, colours: Theme) -> list[list[Cell]]:
    """Each line as characters with their colours."""
    rows: list[list[Cell]] = [[]]
    for token, text in _lexer(language).get_tokens(code):
        while token not in colours.numbers:
            token = token.parent
        number = colours.numbers[token]
        for character in text:
            if character == "\n":
                rows.append([])
            else:
                rows[-1].append((character, number))
    if "\n".join("".join(c for c, _ in row) for row in rows) != code:
        raise CannotRender(f"Pygments' lexer for {language} changes this code: drop the record", "lexer")
    return rows


def _wrapped(rows: list[list[Cell]], fits: int) -> list[tuple[list[Cell], str, int]]:
    """(cells, joint, number of the source line) of each line of the image; what continues is two columns narrower."""
    lines = []
    for number, row in enumerate(rows):
        lines.append((row[:fits], "\n" if number else "", number))
        rest = row[fits:]
        while rest:
            lines.append((rest[: fits - 2], "", number))
            rest = rest[fits - 2 :]
    return lines


def _drawn(
    lines: list[tuple[list[Cell], str, int]], colours: Theme, faces: dict[str, Face], style: CodeStyle, gutter: int
) -> Page:
    regular, cell, step = faces["regular"], faces["regular"].width("0"), round(style.size * style.leading)
    hangs = [2 if number and line[2] == lines[number - 1][2] else 0 for number, line in enumerate(lines)]
    columns = max(hang + len(cells) for hang, (cells, _, _) in zip(hangs, lines, strict=True))
    width = 2 * style.padding + gutter + columns * cell
    height = 2 * style.padding + len(lines) * step
    ink, colour = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    muted = len(colours.colours)
    words, word_lines, word_boxes, line_boxes = [], [], [], []
    for index, ((cells, _, source), hang) in enumerate(zip(lines, hangs, strict=True)):
        top = style.padding + index * step
        baseline, left = top + regular.ascent, style.padding + gutter + hang * cell
        if style.line_numbers and not hang:
            label = str(source + 1)
            _paint(regular, ink, colour, left - (len(label) + 2) * cell, baseline, label, muted)
        if hang:
            _hook(ink, colour, left - 2 * cell, top, cell, step, muted)
        first, drawn = len(word_boxes), []
        for start, text, number in _runs(cells):
            own = faces[colours.colours[number][1]]
            drawn.append((start, _paint(own, ink, colour, left + start * cell, baseline, text, number)))
        for start, word in _words(cells):
            boxes = [box for column, box in drawn if start <= column < start + len(word)]
            word_boxes.append(around(boxes))
            words.append(word)
            word_lines.append(index)
        line_boxes.append(around(word_boxes[first:] or [(left, baseline, left, baseline)]))
    image = _composed(ink, colour, colours)
    page = Page(
        image,
        tuple("".join(c for c, _ in cells) for cells, _, _ in lines),
        tuple(joint for _, joint, _ in lines),
        quads_of(line_boxes),
        tuple(words),
        tuple(word_lines),
        quads_of(word_boxes),
    )
    return page.moved(0, paper.BAR, paper.window(image, colours.muted)) if style.window else page


def _runs(cells: list[Cell]) -> list[tuple[int, str, int]]:
    """(first column, characters, colour) of what is drawn at once: no blanks, one colour, ASCII or one character."""
    runs: list[tuple[int, str, int]] = []
    for column, (character, number) in enumerate(cells):
        if character == " ":
            continue
        if runs and character.isascii():
            start, text, colour = runs[-1]
            if start + len(text) == column and colour == number and text.isascii():
                runs[-1] = start, text + character, colour
                continue
        runs.append((column, character, number))
    return runs


def _words(cells: list[Cell]) -> list[tuple[int, str]]:
    line, found, column = "".join(c for c, _ in cells), [], 0
    for word in line.split():
        column = line.index(word, column)
        found.append((column, word))
        column += len(word)
    return found


def _paint(own: Face, ink: np.ndarray, colour: np.ndarray, x: int, baseline: int, text: str, number: int) -> Box:
    box = own.draw(ink, x, baseline, text) or (x, baseline, x, baseline)  # a soft hyphen, say, has no ink
    colour[box[1] : box[3], box[0] : box[2]] = number
    return box


def _hook(ink: np.ndarray, colour: np.ndarray, x: int, top: int, cell: int, step: int, number: int) -> None:
    """The mark of a wrapped line."""
    x0, x1, y0, y1 = x + cell // 3, x + int(cell * 1.4), top + step // 4, top + int(step * 0.6)
    cv2.polylines(ink, [np.array([[x0, y0], [x0, y1], [x1, y1]], np.int32)], False, 255, 1, cv2.LINE_AA)
    colour[top : top + step, x : x + 2 * cell] = number


def _composed(ink: np.ndarray, colour: np.ndarray, colours: Theme) -> np.ndarray:
    """Coverage and the number of each pixel's colour -> RGB."""
    share = np.arange(256, dtype=np.float32)[None, :, None] / 255
    inks = np.asarray([c for c, _ in colours.colours] + [colours.muted], np.float32)[:, None]
    table = np.rint(np.asarray(colours.background, np.float32) * (1 - share) + inks * share).astype(np.uint8)
    place = colour.astype(np.int32) * 256 + ink
    return np.take(table.reshape(-1, 3), place, axis=0)


def draw_code_style(rng: Random, families: list[fonts.Family]) -> CodeStyle:
    """A style drawn from conf/data_prep/render.yaml, code. families: those of kind mono are used."""
    values = settings("render")["code"]
    return CodeStyle(
        family=rng.choice([f for f in families if f.kind == "mono"]).name,
        size=rng.choice(values["size"]),
        leading=values["leading"],
        theme=rng.choice(values["themes"]),
        line_numbers=rng.random() < values["line_numbers"],
        window=rng.random() < values["window"],
        padding=values["padding"],
        max_width=values["max_width"],
    )
