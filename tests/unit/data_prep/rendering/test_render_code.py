"""Code as images: not a blank is lost, and the record is where the letters are."""

import inspect
import json.decoder
import textwrap
from random import Random

import numpy as np
import pytest

from data_prep.config import settings
from data_prep.rendering import fonts, paper
from data_prep.rendering.code import CodeStyle, draw_code_style, normalise_code, render_code, theme
from data_prep.rendering.page import bounds
from data_prep.rendering.text import CannotRender
from nemo_amalia.utils.errors import UserError

FUNCTIONS = [
    json.decoder.JSONDecoder.decode,
    json.decoder.py_scanstring,
    textwrap.dedent,
    textwrap.TextWrapper._wrap_chunks,
]
CODE = "def soma(a, b):\n    # soma dois números\n\n    return a + b  # fim\n"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_real_functions_come_back_wrapped_or_not(function):
    code = inspect.getsource(function)
    for width in (1240, 520):
        page = render_code(code, "python", CodeStyle(max_width=width))
        assert page.text() == normalise_code(code) and page.size[0] <= width
        assert list(page.words) == " ".join(page.lines).split()


def test_every_word_has_ink_in_its_box_and_there_is_no_other():
    page = render_code(CODE, "python", CodeStyle(theme="vs"))
    plain = np.abs(page.image.astype(int) - page.image[0, 0]).max(axis=2)
    seen = plain.copy()
    for box in bounds(page.word_quads).astype(int):
        assert plain[box[1] : box[3], box[0] : box[2]].max() > 60
        seen[box[1] : box[3], box[0] : box[2]] = 0
    assert seen.max() == 0


@pytest.mark.parametrize("name", settings("render")["code"]["themes"])
def test_every_theme_draws_with_its_colours(name):
    page = render_code(CODE, "python", CodeStyle(theme=name))
    assert tuple(page.image[0, 0]) == theme(name).background
    colours = {tuple(c) for c in page.image.reshape(-1, 3)}
    keyword = theme(name).colours[theme(name).numbers[__import__("pygments.token").token.Keyword]][0]
    assert keyword in colours


def test_line_numbers_and_windows_are_no_part_of_the_record():
    plain = render_code(CODE, "python", CodeStyle())
    numbered = render_code(CODE, "python", CodeStyle(line_numbers=True, window=True))
    assert numbered.text() == plain.text() and numbered.words == plain.words
    moved = numbered.word_quads - plain.word_quads
    assert (moved[..., 1] == paper.BAR).all() and (moved[..., 0] > 0).all()


def test_normalise_keeps_what_can_be_seen():
    assert normalise_code("\n\n\tx = 1   \n\n\ny\n\n") == "    x = 1\n\n\ny"


def test_the_same_code_is_the_same_image():
    style = draw_code_style(Random(3), fonts.families("carried"))
    assert np.array_equal(render_code(CODE, "python", style).image, render_code(CODE, "python", style, seed=9).image)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: render_code("\n \n", "python", CodeStyle()), "no character to render"),
        (lambda: render_code("x = '漢'", "python", CodeStyle()), "no glyph for '漢'"),
        (lambda: render_code("x", "python", CodeStyle(family="stix")), "code needs one of kind mono"),
        (lambda: render_code("x", "klingon", CodeStyle()), "unknown language 'klingon'"),
        (lambda: render_code("x", "python", CodeStyle(theme="dusk")), "unknown theme 'dusk'"),
        (lambda: render_code("x", "python", CodeStyle(max_width=120)), "give at least 8"),
    ],
)
def test_errors_say_what_was_seen(make, says):
    with pytest.raises(UserError, match=says):
        make()


def test_a_refusal_names_its_reason():
    with pytest.raises(CannotRender) as caught:
        render_code("", "python", CodeStyle())
    assert caught.value.reason == "empty"
