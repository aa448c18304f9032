"""Real photographs that scikit-image and scikit-learn carry, with captions and questions written by hand.

The split is by photograph: one side has all its crops. No tiny model can name what it never saw, so of a
held-out photograph only what holds for any is asked (colour, or black and white).
"""

import functools
import importlib.resources
import random
from dataclasses import dataclass

from PIL import Image

from demo.errors import DemoError
from demo.scenes.questions import Question
from demo.scenes.split import Side

_SKIMAGE, _SKLEARN = ("skimage", "data"), ("sklearn", "datasets/images")


@dataclass(frozen=True)
class Photo:
    """A packaged photograph: where it is, its side, caption and subject in pt-PT, and if it has colour."""

    name: str
    package: tuple[str, str]
    side: Side
    caption: str
    subject: str
    colour: bool = True


PHOTOS = (
    Photo(
        "astronaut.png",
        _SKIMAGE,
        "train",
        "Uma astronauta sorridente com um fato cor de laranja.",
        "Uma astronauta",
    ),
    Photo("chelsea.png", _SKIMAGE, "train", "Um gato malhado visto de perto.", "Um gato"),
    Photo(
        "rocket.jpg",
        _SKIMAGE,
        "train",
        "Um foguetão na plataforma de lançamento, ao anoitecer.",
        "Um foguetão",
    ),
    Photo("motorcycle_left.png", _SKIMAGE, "train", "Uma mota vermelha numa garagem.", "Uma mota"),
    Photo("motorcycle_right.png", _SKIMAGE, "train", "Uma mota vermelha numa garagem.", "Uma mota"),
    Photo("hubble_deep_field.jpg", _SKIMAGE, "train", "Galáxias distantes num céu escuro.", "Galáxias"),
    Photo("flower.jpg", _SKLEARN, "train", "Uma dália cor de laranja em flor.", "Uma flor"),
    Photo("moon.png", _SKIMAGE, "train", "A superfície da Lua com algumas crateras.", "A Lua", False),
    Photo("coins.png", _SKIMAGE, "train", "Moedas antigas dispostas em filas.", "Moedas", False),
    Photo("brick.png", _SKIMAGE, "train", "Um pavimento de tijolo.", "Tijolos", False),
    Photo("grass.png", _SKIMAGE, "train", "Relva vista de cima.", "Relva", False),
    Photo("coffee.png", _SKIMAGE, "eval", "Uma chávena de café numa mesa de madeira.", "Uma chávena"),
    Photo("china.jpg", _SKLEARN, "eval", "Um pagode chinês entre árvores.", "Um pagode"),
    Photo("camera.png", _SKIMAGE, "eval", "Um fotógrafo com a câmara num tripé.", "Um fotógrafo", False),
    Photo("gravel.png", _SKIMAGE, "eval", "Gravilha vista de cima.", "Gravilha", False),
)


@functools.cache
def load(photo: Photo) -> Image.Image:
    """The whole photograph as RGB.

    Raises:
        DemoError: the package does not carry it.
    """
    package, folder = photo.package
    path = importlib.resources.files(package) / folder / photo.name
    if not path.is_file():
        raise DemoError(f"{photo.name} is not in {package}'s {folder}: install the versions of pyproject.toml")
    with path.open("rb") as stream:
        return Image.open(stream).convert("RGB")


def crop(photo: Photo, rng: random.Random, size: int = 256) -> Image.Image:
    """A random square crop of 60 to 100 % of the shorter side, at `size` pixels."""
    image = load(photo)
    side = int(min(image.size) * rng.uniform(0.6, 1.0))
    left, top = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def random_photo(rng: random.Random, side: Side) -> Photo:
    """One of the photographs of `side`."""
    return rng.choice([photo for photo in PHOTOS if photo.side == side])


def ask(photo: Photo, rng: random.Random) -> list[Question]:
    """Questions with a single answer; the subject is asked of training photographs only."""
    tone = "A cores" if photo.colour else "A preto e branco"
    asked = [Question("fotografia", "tom", "A fotografia é a cores ou a preto e branco?", tone)]
    if photo.side == "train":
        text = rng.choice(("O que se vê na fotografia?", "O que mostra a fotografia?"))
        asked.append(Question("fotografia", "assunto", text, photo.subject))
    rng.shuffle(asked)
    return asked
