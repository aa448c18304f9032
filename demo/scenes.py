"""Drawn scenes: one to four shapes in the cells of a grid, sometimes with a word, and how they are painted.

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

from demo import words as word_lists
from demo.split import Side, side_of

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
FORMS = {"quadrada": (256, 256, 3, 3), "larga": (256, 128, 1, 3), "alta": (128, 256, 3, 1)}
_ROWS = ("em cima", "a meio", "em baixo")
_COLUMNS = ("à esquerda", "ao centro", "à direita")
_FONTS = ("DejaVuSans-Bold.ttf", "DejaVuSansMono-Bold.ttf")  # bold: a letter is 10 to 20 pixels to the tower


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
    """The pt-PT name of a cell: "em cima à esquerda", "ao centro", "em baixo à direita"..."""
    row, column = cell
    if form == "larga":
        return _COLUMNS[column]
    if form == "alta":
        return "ao centro" if row == 1 else _ROWS[row]
    if cell == (1, 1):
        return "ao centro"
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


def random_scene(rng: random.Random, side: Side, word_share: float = 0.35, longest: int = 4) -> Scene:
    """Draw a layout that lies on `side` (its word, of three to `longest` letters, if it has one, too)."""
    while True:
        form = rng.choices(("quadrada", "larga", "alta"), weights=(0.76, 0.12, 0.12))[0]
        _, _, rows, columns = FORMS[form]
        cells = [(row, column) for row in range(rows) for column in range(columns)]
        word = word_row = None
        if form == "quadrada" and rng.random() < word_share:
            word, word_row = rng.choice(word_lists.words(side, longest)), rng.randrange(3)
            cells = [cell for cell in cells if cell[0] != word_row]
        count = rng.choice((1, 2, 3, 4) if form == "quadrada" and not word else (1, 2, 3))
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
        radius = min(cell_w, cell_h) * rng.uniform(0.35, 0.44)
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
    """Write `text` as large as fits `frame`; returns (letter, box) with boxes in unscaled pixels."""
    left, top, right, bottom = frame
    name = rng.choice(_FONTS)
    probe = font(name, 100)
    box = probe.getbbox(text)
    room = rng.uniform(0.84, 0.94)
    size = int(min((right - left) * room / (box[2] - box[0]), (bottom - top) * room / (box[3] - box[1])) * 100)
    face = font(name, size // 2 * 2)
    box = face.getbbox(text)
    spare_x, spare_y = right - left - (box[2] - box[0]), bottom - top - (box[3] - box[1])
    x = left + spare_x * rng.uniform(0.42, 0.58) - box[0]
    y = top + spare_y * rng.uniform(0.4, 0.6) - box[1]
    shade = rng.randint(0, 70)
    ink = tuple(max(0, shade + rng.randint(-20, 20)) for _ in range(3))
    draw.text((x, y), text, fill=ink, font=face)
    letters = []
    for index, letter in enumerate(text):
        start, end = x + face.getlength(text[:index]), x + face.getlength(text[: index + 1])
        letters.append((letter, (start / scale, (y + box[1]) / scale, end / scale, (y + box[3]) / scale)))
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
