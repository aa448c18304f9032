"""Drawn scenes: one to four shapes in the cells of a grid, sometimes with a word, and how they are painted.

A cell is as large as a tile of the tiny model: a shape lies in one tile, the four letters of a word in two.
A scene's layout (shapes, colours, cells, word) is what the split hashes; the painting (background, sizes,
jitter, font) comes from a second random stream and never decides an answer.
"""

import functools
import io
import math
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from demo.scenes import words as word_lists
from demo.scenes.split import Side, side_of

#: Shape -> (gender, plural).
SHAPES = {
    "círculo": ("m", "círculos"),
    "quadrado": ("m", "quadrados"),
    "triângulo": ("m", "triângulos"),
    "estrela": ("f", "estrelas"),
    "cruz": ("f", "cruzes"),
}
#: Colour -> (feminine, masculine plural, feminine plural, RGB). "laranja" does not inflect.
COLOURS = {
    "vermelho": ("vermelha", "vermelhos", "vermelhas", (212, 36, 42)),
    "azul": ("azul", "azuis", "azuis", (38, 86, 205)),
    "verde": ("verde", "verdes", "verdes", (36, 150, 70)),
    "amarelo": ("amarela", "amarelos", "amarelas", (244, 208, 40)),
    "roxo": ("roxa", "roxos", "roxas", (132, 48, 165)),
    "preto": ("preta", "pretos", "pretas", (24, 24, 28)),
    "laranja": ("laranja", "laranja", "laranja", (246, 134, 28)),
}
#: Image form -> (width, height, rows, columns of cells).
FORMS = {"quadrada": (256, 256, 2, 2), "larga": (256, 128, 1, 2), "alta": (128, 256, 2, 1)}
_ROWS = ("em cima", "em baixo")
_COLUMNS = ("à esquerda", "à direita")
_FONTS = ("DejaVuSans-Bold.ttf", "DejaVuSansMono-Bold.ttf")  # bold: a letter is 10 pixels wide in a thumbnail


@dataclass(frozen=True, order=True)
class Thing:
    """One shape in one cell (row, column)."""

    cell: tuple[int, int]
    shape: str
    colour: str


@dataclass(frozen=True)
class Scene:
    """A layout: the form of the image, its shapes in reading order, and a word filling one row, if any."""

    form: str
    things: tuple[Thing, ...]
    word: str | None = None
    word_row: int | None = None

    @property
    def key(self) -> str:
        """The canonical layout, which the split hashes; the word's row is left out: it is no new layout."""
        things = ";".join(f"{t.shape},{t.colour},{t.cell[0]}{t.cell[1]}" for t in sorted(self.things))
        return f"{self.form}|{things}|{self.word or ''}"


def place(form: str, cell: tuple[int, int]) -> str:
    """The pt-PT name of a cell: "em cima à esquerda", "à direita", "em baixo"..."""
    row, column = cell
    if form == "larga":
        return _COLUMNS[column]
    if form == "alta":
        return _ROWS[row]
    return f"{_ROWS[row]} {_COLUMNS[column]}"


def row_place(row: int) -> str:
    """The pt-PT name of a row of the square form."""
    return _ROWS[row]


def colour_form(colour: str, gender: str, plural: bool = False) -> str:
    """The colour's adjective in the given gender ("m" or "f") and number."""
    feminine, masculine_plural, feminine_plural, _ = COLOURS[colour]
    if plural:
        return feminine_plural if gender == "f" else masculine_plural
    return feminine if gender == "f" else colour


def random_scene(rng: random.Random, side: Side, word_share: float = 0.35) -> Scene:
    """Draw a layout that lies on `side`; so does its word, if it has one (in training half are acronyms)."""
    while True:
        form = rng.choices(("quadrada", "larga", "alta"), weights=(0.76, 0.12, 0.12))[0]
        _, _, rows, columns = FORMS[form]
        cells = [(row, column) for row in range(rows) for column in range(columns)]
        word = word_row = None
        if form == "quadrada" and rng.random() < word_share:
            word, word_row = rng.choice(word_lists.words(side)), rng.randrange(rows)
            if side == "train" and rng.random() < 0.5:  # many more strings than the list has
                word = word_lists.acronym(rng, side)
            cells = [cell for cell in cells if cell[0] != word_row]
        count = rng.randint(1, len(cells))
        shapes = rng.sample(list(SHAPES), rng.choice((1, 2, 2, 3, 5)))  # few kinds: so that kinds repeat
        picked = rng.sample(cells, count)
        things = (Thing(cell, rng.choice(shapes), rng.choice(list(COLOURS))) for cell in picked)
        scene = Scene(form, tuple(sorted(things)), word, word_row)
        if side_of(scene.key) == side:
            return scene


@dataclass(frozen=True)
class Painting:
    """A painted scene: the picture, and where in its pixels each shape and letter lies (for the tower)."""

    image: Image.Image
    boxes: tuple[tuple[str, tuple[float, float, float, float]], ...]


@functools.cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of matplotlib's fonts, at a size in pixels."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def paint(scene: Scene, rng: random.Random) -> Painting:
    """Paint a scene at its form's size, antialiased (drawn at twice the size and reduced)."""
    width, height, rows, columns = FORMS[scene.form]
    scale = 2
    base = rng.randint(228, 255)
    background = tuple(min(255, max(215, base + rng.randint(-14, 14))) for _ in range(3))
    image = Image.new("RGB", (width * scale, height * scale), background)
    draw = ImageDraw.Draw(image)
    boxes = []
    cell_w, cell_h = width * scale / columns, height * scale / rows
    for thing in scene.things:
        radius = min(cell_w, cell_h) * rng.uniform(0.33, 0.44)
        row, column = thing.cell
        x = (column + 0.5) * cell_w + rng.uniform(-1, 1) * (cell_w / 2 - radius) * 0.6
        y = (row + 0.5) * cell_h + rng.uniform(-1, 1) * (cell_h / 2 - radius) * 0.6
        rgb = tuple(min(255, max(0, c + rng.randint(-12, 12))) for c in COLOURS[thing.colour][3])
        _draw_shape(draw, thing.shape, x, y, radius, rgb, rng.uniform(-0.15, 0.15))
        gender = SHAPES[thing.shape][0]
        phrase = f"{thing.shape} {colour_form(thing.colour, gender)}"
        box = ((x - radius) / scale, (y - radius) / scale, (x + radius) / scale, (y + radius) / scale)
        boxes.append((phrase, box))
    if scene.word is not None:
        frame = (0.0, scene.word_row * cell_h, width * scale, (scene.word_row + 1) * cell_h)
        boxes += write(draw, scene.word, frame, rng, scale)
    return Painting(image.reduce(scale), tuple(boxes))


def write(draw: ImageDraw.ImageDraw, text: str, frame: tuple[float, ...], rng: random.Random, scale: int) -> list:
    """Write `text` over `frame`, evenly spaced as on a sign; returns (letter, box), boxes in unscaled pixels."""
    left, top, right, bottom = frame
    name = rng.choice(_FONTS)
    pitch = (right - left) / len(text)
    drawn = [font(name, 100).getbbox(letter) for letter in text]
    room = rng.uniform(0.74, 0.9)
    high = max(box[3] for box in drawn) - min(box[1] for box in drawn)
    size = min(pitch * room / max(box[2] - box[0] for box in drawn), (bottom - top) * 0.85 / high) * 100
    face = font(name, int(size) // 2 * 2)
    above = min(face.getbbox(letter)[1] for letter in text)
    under = max(face.getbbox(letter)[3] for letter in text)
    y = top + (bottom - top - (under - above)) * rng.uniform(0.35, 0.65) - above
    shift = pitch * (1 - room) * rng.uniform(-0.5, 0.5)
    shade = rng.randint(0, 70)
    ink = tuple(max(0, shade + rng.randint(-20, 20)) for _ in range(3))
    letters = []
    for index, letter in enumerate(text):
        box = face.getbbox(letter)
        x = left + (index + 0.5) * pitch + shift - (box[2] + box[0]) / 2
        draw.text((x, y), letter, fill=ink, font=face)
        corners = (x + box[0], y + box[1], x + box[2], y + box[3])
        letters.append((letter, tuple(corner / scale for corner in corners)))
    return letters


def _draw_shape(draw, shape: str, x: float, y: float, radius: float, rgb, turn: float) -> None:
    if shape == "círculo":
        radius *= 0.92
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=rgb)
        return
    if shape == "quadrado":
        corners = _polar(4, math.pi / 4, (radius * 1.15,))
    elif shape == "triângulo":
        corners = _polar(3, -math.pi / 2, (radius * 1.08,))
    elif shape == "estrela":
        corners = _polar(10, -math.pi / 2, (radius * 1.08, radius * 0.45))
    else:
        a, b = radius * 0.98, radius * 0.33
        corners = [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b)]
        corners += [(-px, -py) for px, py in corners]
    cos, sin = math.cos(turn), math.sin(turn)
    draw.polygon([(x + px * cos - py * sin, y + px * sin + py * cos) for px, py in corners], fill=rgb)


def _polar(count: int, start: float, radii: tuple[float, ...]) -> list[tuple[float, float]]:
    angles = [start + 2 * math.pi * i / count for i in range(count)]
    return [(math.cos(a) * radii[i % len(radii)], math.sin(a) * radii[i % len(radii)]) for i, a in enumerate(angles)]


def encode(image: Image.Image, rng: random.Random) -> bytes:
    """PNG or JPEG bytes, as real data comes in both."""
    buffer = io.BytesIO()
    if rng.random() < 0.5:
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
