"""Drawings of things whose name differs between Portugal and Brazil, with an answer in each variety: stage 3's pairs.

Stage 2 sees answers of both (BRAZILIAN of them pt-BR), as a mix taken from the web would have them; stage 3 prefers
the pt-PT answer to the pt-BR one for the same drawing and question. What is held out are drawings: a thing in a colour,
at a place and in a size. (Were it things in a colour, training would teach that nothing else has that colour.)
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

from demo.scenes.scenes import COLOURS, colour_form
from demo.scenes.split import Side, side_of

BRAZILIAN = 0.7  # of stage 2's answers about drawings
VARIETIES = ("pt-PT", "pt-BR")
SIDE = 256  # of the picture, in pixels
_SCALE = 2
PLACES, SIZES = 3, 3
_RADIUS = 0.34, 0.44  # smallest and largest, as a share of SIDE

#: Question -> its answer by variety; {x} is the thing with its article and colour.
PHRASES = {
    "O que mostra o desenho?": {"pt-PT": "O desenho está a mostrar {x}.", "pt-BR": "O desenho está mostrando {x}."},
    "O que se vê no desenho?": {"pt-PT": "Está a ver-se {x}.", "pt-BR": "Está se vendo {x}."},
}


@dataclass(frozen=True)
class Named:
    """A thing: variety -> (article, name), and what draws it."""

    names: dict[str, tuple[str, str]]
    draw: Callable[[ImageDraw.ImageDraw, float, float, float, tuple, tuple], None]


@dataclass(frozen=True)
class Drawing:
    """What is drawn, in which colour, where and how large."""

    thing: str  # of THINGS
    colour: str
    place: tuple[int, int] = (1, 1)  # column and row, of PLACES each
    size: int = 1  # of SIZES

    @property
    def key(self) -> str:
        """What the split hashes."""
        return f"desenho de {self.thing} {self.colour} em {self.place} com {self.size}"

    def answer(self, question: str, variety: str) -> str:
        """To one of PHRASES."""
        article, name = THINGS[self.thing].names[variety]
        x = f"{article} {name} {colour_form(self.colour, 'f' if article == 'uma' else 'm')}"
        return PHRASES[question][variety].format(x=x)


def random_drawing(rng: random.Random, side: Side) -> Drawing:
    """One that lies on ``side``."""
    while True:
        place = rng.randrange(PLACES), rng.randrange(PLACES)
        drawing = Drawing(rng.choice(list(THINGS)), rng.choice(list(COLOURS)), place, rng.randrange(SIZES))
        if side_of(drawing.key) == side:
            return drawing


def paint(drawing: Drawing, rng: random.Random) -> Image.Image:
    """The picture, antialiased; shades, and where within its place and size, are drawn from ``rng``."""
    shade = rng.randint(228, 255)
    paper = tuple(min(255, max(215, shade + rng.randint(-14, 14))) for _ in range(3))
    image = Image.new("RGB", (SIDE * _SCALE, SIDE * _SCALE), paper)
    small, large = _RADIUS
    radius = SIDE * _SCALE * (small + (large - small) * (drawing.size + rng.random()) / SIZES)
    room = SIDE * _SCALE / 2 - radius
    x, y = (SIDE * _SCALE / 2 + (2 * (at + rng.random()) / PLACES - 1) * room * 0.8 for at in drawing.place)
    ink = tuple(min(255, max(0, c + rng.randint(-12, 12))) for c in COLOURS[drawing.colour][3])
    THINGS[drawing.thing].draw(ImageDraw.Draw(image), x, y, radius, ink, paper)
    return image.reduce(_SCALE)


def _box(draw, x, y, r, box, fill, round_by=0.0) -> None:
    """A rectangle in units of r around (x, y)."""
    left, top, right, bottom = (v * r for v in box)
    draw.rounded_rectangle((x + left, y + top, x + right, y + bottom), round_by * r, fill=fill)


def _disc(draw, x, y, r, at, size, fill) -> None:
    cx, cy = x + at[0] * r, y + at[1] * r
    draw.ellipse((cx - size * r, cy - size * r, cx + size * r, cy + size * r), fill=fill)


def _bus(draw, x, y, r, ink, paper) -> None:
    _box(draw, x, y, r, (-1, -0.6, 1, 0.45), ink, 0.15)
    for left in (-0.85, -0.27, 0.31):
        _box(draw, x, y, r, (left, -0.42, left + 0.5, -0.02), paper)
    for wheel in (-0.55, 0.55):
        _disc(draw, x, y, r, (wheel, 0.45), 0.24, ink)
        _disc(draw, x, y, r, (wheel, 0.45), 0.1, paper)


def _train(draw, x, y, r, ink, paper) -> None:
    _box(draw, x, y, r, (-1, -0.15, 0.35, 0.4), ink)  # boiler
    _box(draw, x, y, r, (0.3, -0.75, 1, 0.4), ink)  # cab
    _box(draw, x, y, r, (0.45, -0.58, 0.85, -0.2), paper)
    _box(draw, x, y, r, (-0.8, -0.7, -0.5, -0.1), ink)  # chimney
    for wheel in (-0.7, -0.15, 0.4, 0.8):
        _disc(draw, x, y, r, (wheel, 0.5), 0.2, ink)


def _phone(draw, x, y, r, ink, paper) -> None:
    _box(draw, x, y, r, (-0.5, -1, 0.5, 1), ink, 0.14)
    _box(draw, x, y, r, (-0.38, -0.78, 0.38, 0.62), paper)
    _disc(draw, x, y, r, (0, 0.8), 0.1, paper)


def _fridge(draw, x, y, r, ink, paper) -> None:
    _box(draw, x, y, r, (-0.6, -1, 0.6, 0.92), ink, 0.06)
    _box(draw, x, y, r, (-0.6, -0.36, 0.6, -0.26), paper)
    _box(draw, x, y, r, (0.3, -0.8, 0.4, -0.5), paper)
    _box(draw, x, y, r, (0.3, -0.1, 0.4, 0.4), paper)
    for foot in (-0.5, 0.3):
        _box(draw, x, y, r, (foot, 0.9, foot + 0.2, 1), ink)


def _cup(draw, x, y, r, ink, paper) -> None:
    _disc(draw, x, y, r, (0.62, 0.0), 0.38, ink)
    _disc(draw, x, y, r, (0.62, 0.0), 0.2, paper)
    draw.polygon([(x - 0.85 * r, y - 0.5 * r), (x + 0.6 * r, y - 0.5 * r), (x + 0.35 * r, y + 0.6 * r),
                  (x - 0.6 * r, y + 0.6 * r)], fill=ink)  # fmt: skip
    _box(draw, x, y, r, (-1, 0.68, 0.8, 0.82), ink)


def _ice_cream(draw, x, y, r, ink, paper) -> None:
    draw.polygon([(x - 0.5 * r, y - 0.1 * r), (x + 0.5 * r, y - 0.1 * r), (x, y + r)], fill=ink)
    for turn in (-0.75, 0.0, 0.75):
        _disc(draw, x, y, r, (0.42 * math.sin(turn) * 1.2, -0.12 - 0.42 * math.cos(turn)), 0.36, ink)
    _box(draw, x, y, r, (-0.5, -0.12, 0.5, -0.06), paper)


#: pt-PT name -> how it is called and drawn.
THINGS = {
    "autocarro": Named({"pt-PT": ("um", "autocarro"), "pt-BR": ("um", "ônibus")}, _bus),
    "comboio": Named({"pt-PT": ("um", "comboio"), "pt-BR": ("um", "trem")}, _train),
    "telemóvel": Named({"pt-PT": ("um", "telemóvel"), "pt-BR": ("um", "celular")}, _phone),
    "frigorífico": Named({"pt-PT": ("um", "frigorífico"), "pt-BR": ("uma", "geladeira")}, _fridge),
    "chávena": Named({"pt-PT": ("uma", "chávena"), "pt-BR": ("uma", "xícara")}, _cup),
    "gelado": Named({"pt-PT": ("um", "gelado"), "pt-BR": ("um", "sorvete")}, _ice_cream),
}
