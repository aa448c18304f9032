"""Code and outputs as pictures, each read again from the renderer's record before it is used."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from data_prep.engine import Drop, Sample
from data_prep.rendering.code import draw_code_style, normalise_code, render_code
from data_prep.rendering.encode import encode
from data_prep.rendering.fonts import Family, families
from data_prep.rendering.text import CannotRender


def picture(sample: Sample, run: Any, *, field: str, fonts: str, programming: str | None = None) -> Sample:
    """Adds "images": the picture of sample[field] in a theme and size drawn for this sample.

    programming: a Pygments name ("text": an output); None: what the sample says. fonts: a set of
    conf/data_prep/fonts.yaml. Drops what cannot be drawn, as render_REASON, and a record that does not give the text
    again, as record.
    """
    try:
        style = draw_code_style(run.rng, _monospaced(fonts))
        if programming == "text":  # beside an output of numbers, a line's number would be read as one of them
            style = replace(style, line_numbers=False, padding=2 * style.padding)
        page = render_code(sample[field], programming or sample["programming"], style)
    except CannotRender as error:
        raise Drop(f"render_{error.reason}", str(error)) from error
    if page.text() != normalise_code(sample[field]):
        raise Drop("record", "the renderer's record gives another text")
    return sample | {"images": [encode(page.image)]}


@lru_cache(maxsize=4)
def _monospaced(fonts: str) -> list[Family]:
    return families(fonts, ("mono",))
