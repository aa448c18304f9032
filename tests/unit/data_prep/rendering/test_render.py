"""Rendering: the record says what stands in the image and where, and nothing depends on the process."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data_prep.rendering import fonts, paper
from data_prep.rendering.encode import encode
from data_prep.rendering.page import bounds, quads_of
from data_prep.rendering.panels import panel
from data_prep.rendering.text import CannotRender, TextStyle, draw_style, render_text
from data_prep.rendering.wrap import normalise
from nemo_amalia.utils.errors import UserError

TEXT = (
    "Aviso à população\n\nA Câmara Municipal informa que o abastecimento de água será interrompido às 14h30 do dia "
    "3 de março, na Rua de São João e na Travessa da Conceição.\n\nContactos:\nTel. 253 000 000\ngeral@exemplo.pt"
)
SMALL = TextStyle(width=700, size=22, margin=50)


def ink_outside(image: np.ndarray, boxes: np.ndarray) -> int:
    """Pixels that differ from the paper and lie in no box."""
    left = image != image[0, 0]
    for x0, y0, x1, y1 in boxes.astype(int):
        left[y0:y1, x0:x1] = False
    return int(left.sum())


def test_the_record_is_the_text():
    page = render_text(TEXT, SMALL)
    assert page.text() == normalise(TEXT)
    assert [w for w in page.words] == TEXT.split()


@pytest.mark.parametrize(
    "style", [SMALL, replace(SMALL, align="justify", indent=30, title=True), replace(SMALL, align="center")]
)
def test_every_word_is_ink_in_its_box_and_there_is_no_other(style):
    page = render_text(TEXT, style)
    boxes = bounds(page.word_quads)
    assert ink_outside(page.image, boxes) == 0
    for word, (x0, y0, x1, y1) in zip(page.words, boxes.astype(int), strict=True):
        box = page.image[y0:y1, x0:x1]
        assert (box < 128).any(), word
        for edge in (box[0], box[-1], box[:, 0], box[:, -1]):  # tight
            assert (edge < 255).any(), word


def test_a_line_holds_its_words_in_order():
    page = render_text(TEXT, replace(SMALL, columns=1, align="justify"))
    lines, words = bounds(page.line_quads), bounds(page.word_quads)
    for index, text in enumerate(page.lines):
        own = [n for n, line in enumerate(page.word_lines) if line == index]
        assert " ".join(page.words[n] for n in own) == text
        assert (np.diff(words[own][:, 0]) > 0).all()
        assert np.array_equal(np.concatenate([words[own][:, :2].min(0), words[own][:, 2:].max(0)]), lines[index])


def test_two_columns_read_down_and_then_across():
    page = render_text(
        "\n\n".join(["Uma frase qualquer que se repete até encher. " * 6] * 3), TextStyle(columns=2, size=20)
    )
    x, y = page.line_quads[:, 0, 0], page.line_quads[:, 0, 1]
    turns = np.flatnonzero(np.diff(y) < 0)
    assert len(turns) == 1 and x[turns[0] + 1] > x[turns[0]] + 300
    assert ink_outside(page.image, bounds(page.word_quads)) == 0


WORDS = st.text(st.characters(codec="latin-1", categories=("L", "N", "P")), min_size=1, max_size=60)


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=12), min_size=1, max_size=5), st.sampled_from(["\n", "\n\n"]))
def test_any_text_comes_back(rows, between):
    text = between.join(" ".join(row) for row in rows)
    page = render_text(text, SMALL)
    assert page.text() == normalise(text)
    assert (bounds(page.word_quads) >= 0).all() and (bounds(page.word_quads)[:, 2] <= 700).all()


def test_looks_give_the_right_colours():
    cream = render_text(TEXT, replace(SMALL, look="cream"), seed=1)
    assert cream.image.shape[2] == 3
    assert np.abs(np.median(cream.image, axis=(0, 1)) - paper.look("cream").paper).max() <= 2
    screen, plain = render_text(TEXT, replace(SMALL, look="screen_dark")), render_text(TEXT, SMALL)
    assert screen.image.shape[0] == plain.image.shape[0] + paper.BAR
    assert np.array_equal(screen.word_quads - plain.word_quads, np.full_like(plain.word_quads, [0, paper.BAR]))


def test_the_seed_is_of_the_grain_alone():
    one, two = (render_text(TEXT, replace(SMALL, look="aged"), seed=s) for s in (1, 2))
    assert not np.array_equal(one.image, two.image)
    assert np.array_equal(one.word_quads, two.word_quads)


DIGEST = """
import hashlib, sys
from data_prep.rendering.encode import encode
from data_prep.rendering.perturb import names, perturb_page
from data_prep.rendering.text import TextStyle, render_text
page = render_text(sys.argv[1], TextStyle(width=700, size=22, margin=50, look="aged"), seed=5)
page = perturb_page(page, names(), 7)
for data in (encode(page.image, "jpeg"), encode(page.image, "png"), page.word_quads.tobytes()):
    print(hashlib.sha256(data).hexdigest())
"""


def test_bytes_are_equal_across_processes():
    runs = [
        subprocess.run(
            [sys.executable, "-c", DIGEST, TEXT],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[4],
            check=True,
            env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": str(number), "PYTHONPATH": "."},
        ).stdout
        for number in (1, 2)
    ]
    assert runs[0] == runs[1] and len(runs[0].split()) == 3


def test_encoding_png_loses_nothing():
    from io import BytesIO

    from PIL import Image

    page = render_text(TEXT, replace(SMALL, look="cream"), seed=3)
    assert np.array_equal(np.asarray(Image.open(BytesIO(encode(page.image, "png")))), page.image)
    jpeg = np.asarray(Image.open(BytesIO(encode(page.image, "jpeg", quality=95))))
    assert np.abs(jpeg.astype(int) - page.image).mean() < 6  # and its channels are in order
    assert hashlib.sha256(encode(page.image)).digest() == hashlib.sha256(encode(page.image)).digest()


def test_panels_keep_every_record():
    pages = [
        render_text(f"Folha {n}. " + "palavra " * 10 * n, replace(SMALL, width=300 + 60 * n, margin=30))
        for n in (1, 2, 3)
    ]
    for direction in ("row", "column", "grid"):
        image, moved = panel(pages, direction)
        for page, there in zip(pages, moved, strict=True):
            x, y = (there.word_quads - page.word_quads)[0, 0].astype(int)
            assert np.array_equal(image[y : y + page.size[1], x : x + page.size[0]], page.image)
            assert there.text() == page.text()
    cream = render_text(TEXT, replace(SMALL, look="cream"))
    image, moved = panel([pages[0], cream], "row")
    assert image.ndim == 3 and moved[1].image is image


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: render_text(" \n\n ", SMALL), "no word to render"),
        (lambda: render_text("olá 漢字", SMALL), "no glyph for '字漢'"),
        (lambda: render_text("palavra " * 400, replace(SMALL, height=300)), "do not fit 300 pixels"),
        (lambda: render_text("olá", replace(SMALL, look="gold")), "unknown paper 'gold'"),
        (lambda: render_text("olá", replace(SMALL, family="arial")), "unknown font family 'arial'"),
        (lambda: TextStyle(width=300), "holds no line of 25-pixel letters"),
        (lambda: TextStyle(align="right"), "expected left, justify or center"),
        (lambda: fonts.families("latex"), "unknown font set 'latex'"),
        (lambda: fonts.families(["stix"], ["mono"]), "no font of kind mono"),
        (lambda: quads_of(np.zeros((2, 3))), r"boxes have shape \(2, 3\)"),
        (lambda: encode(np.zeros((2, 2), np.uint8), "webp"), "expected jpeg or png"),
        (lambda: panel([], "row"), "a panel of 0 pages"),
    ],
)
def test_errors_say_what_was_seen(make, says):
    with pytest.raises(UserError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_refusal_names_its_reason():
    with pytest.raises(CannotRender) as caught:
        render_text("olá 漢字", SMALL)
    assert caught.value.reason == "glyph"


def test_a_missing_font_names_its_package(monkeypatch):
    monkeypatch.setattr(fonts, "installed_files", dict)
    with pytest.raises(UserError, match="apt-get install fonts-lato"):
        fonts.families(["lato"])


def test_carried_fonts_have_every_portuguese_letter():
    alphabet = "abcdefghijklmnopqrstuvwxyzáàâãçéêíóôõúü"
    for family in fonts.families("carried"):
        for style in fonts.STYLES:
            assert not fonts.missing_characters(
                alphabet + alphabet.upper() + "«»“”‘’–—…€ºª§°0123456789", family.path(style)
            )


def test_drawn_styles_are_varied_and_the_same_for_a_seed():
    chosen = fonts.families("carried")
    styles = [draw_style(Random(n), chosen, TEXT) for n in range(200)]
    assert styles == [draw_style(Random(n), chosen, TEXT) for n in range(200)]
    assert {s.family for s in styles} == {f.name for f in chosen}
    assert len({s.look for s in styles}) >= 8 and {s.columns for s in styles} == {1}  # rows: never in columns
