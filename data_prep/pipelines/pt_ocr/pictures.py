"""Documents -> the images of a sample: rendered, or as the data set has them; perturbed; side by side or apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import cv2
import numpy as np

from data_prep.rendering import fonts
from data_prep.rendering.encode import encode
from data_prep.rendering.page import Page, quads_of
from data_prep.rendering.panels import panel
from data_prep.rendering.perturb import names, perturb_page
from data_prep.rendering.text import CannotRender, draw_style, render_text
from data_prep.seeds import how_many, weighted
from nemo_amalia.utils.errors import DataError

A4 = 2**0.5  # height over width


class CannotShow(DataError):
    """A document that gives no image; `reason` is the name to count it under."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Pictures:
    """images: bytes. pages: a record for each document. arrangement: one, images, row, column or grid.
    done: the perturbations of each page.
    """

    images: list[bytes]
    pages: list[Page]
    arrangement: str
    done: list[list[str]]


def draw(documents: Sequence[Mapping[str, Any]], rng: Random, values: Mapping[str, Any]) -> Pictures:
    """The images of some documents. values: conf/data_prep/pt_ocr.yaml, pictures.

    Raises CannotShow: a text that no font of the set can draw, an image that cannot be decoded.
    """
    families = fonts.families(values["fonts"], values["kinds"])
    number = len(documents)
    arrangement = "one" if number == 1 else weighted(rng, dict(values["arrangements"]))
    if arrangement == "grid" and number < 3:
        arrangement = "row"
    widths = values["panel_width"] if arrangement in ("row", "column", "grid") else None
    pages, done = [], []
    for document in documents:
        page = _page(document, rng, families, widths, values["full_page"])
        chosen = draw_perturbations(rng, values["perturbed"]) if rng.random() < values["perturbed"]["share"] else []
        done.append(chosen)
        pages.append(perturb_page(page, chosen, rng.getrandbits(40)))
    if arrangement in ("row", "column", "grid"):
        grey = rng.choice((60, 128, 200, 235))
        image, pages = panel(pages, arrangement, values["gap"], (grey, grey, grey))
        shown = [image]
    else:
        shown = [page.image for page in pages]
    fmt = "png" if rng.random() < values["png"] else "jpeg"
    quality = rng.randint(*values["jpeg_quality"])
    return Pictures([encode(image, fmt, quality) for image in shown], pages, arrangement, done)


def _page(
    document: Mapping[str, Any], rng: Random, families: list[fonts.Family], widths: Sequence[int] | None, full: float
) -> Page:
    if document["image"] is not None:
        return _photographed(document)
    error: CannotRender | None = None
    for _ in range(6):  # another font may have the glyphs
        style = draw_style(rng, families, document["text"], rng.randint(*widths) if widths else None)
        style = replace(style, title=bool(document["title"]))
        tall = widths is None and len(document["text"]) > 900 and rng.random() < full
        for height in (round(style.width * A4), None) if tall else (None,):
            try:
                return render_text(document["text"], replace(style, height=height), rng.getrandbits(40))
            except CannotRender as caught:
                error = caught
    raise CannotShow(str(error), error.reason)


def _photographed(document: Mapping[str, Any]) -> Page:
    """An image of the data set with its text; where its lines stand in it nobody knows, so each has an empty box."""
    image = cv2.imdecode(np.frombuffer(document["image"], np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise CannotShow(f"the image of {document['id']} cannot be decoded: drop it", "image")
    lines, joints = [], []
    for number, block in enumerate(document["text"].split("\n\n")):
        for row, line in enumerate(block.split("\n")):
            lines.append(line)
            joints.append("\n" if row else "\n\n" if number else "")
    return Page(image, tuple(lines), tuple(joints), quads_of(np.zeros((len(lines), 4))), (), (), quads_of([]))


def draw_perturbations(rng: Random, values: Mapping[str, Any]) -> list[str]:
    """One of each of some groups: two kinds of blur on one page would hide it."""
    groups = rng.sample([list(group) for group in values["groups"]], how_many(rng, values["number"]))
    chosen = {rng.choice(group) for group in groups}
    return [name for name in names() if name in chosen]
