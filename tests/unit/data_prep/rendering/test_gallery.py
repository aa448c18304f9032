"""The contact sheet: every sample has its card, nothing runs out of it, and the file is as small as asked."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from data_prep.rendering.encode import encode
from data_prep.rendering.gallery import BACKGROUND, EDGE, gallery, write_gallery
from nemo_amalia.utils.errors import UserError


def sample(question: str, answer: str, images: int = 1, size=(60, 200)) -> dict:
    noise = np.random.default_rng(1).integers(0, 255, (*size, 3)).astype(np.uint8)
    content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": [encode(noise, "png")] * images}


SAMPLES = [
    sample("Que texto está na imagem?", "Olá"),
    sample("Pergunta " * 80, "Resposta " * 200, images=3),
    sample("Sem imagem", '{\n  "a": 1\n}', images=0),
    sample("Alta e estreita", "palavra" * 60, size=(900, 40)),
]


def test_cards_stand_in_columns_and_text_stays_in_them():
    sheet = np.asarray(gallery(SAMPLES, columns=2, card=300))
    assert sheet.shape[1] == 3 * 18 + 2 * 300
    background = (sheet == tuple(bytes.fromhex(BACKGROUND[1:]))).all(axis=2)
    gutters = [slice(0, 18), slice(318, 336), slice(636, 654)]
    assert all(background[:, gutter].all() for gutter in gutters)
    edge = (sheet == tuple(bytes.fromhex(EDGE[1:]))).all(axis=2)
    corners = edge[:-1, 18] & ~edge[1:, 18] | edge[:-1, 336] & ~edge[1:, 336]
    assert corners.sum() == len(SAMPLES)


def test_a_gallery_is_as_small_as_asked(tmp_path):
    size = write_gallery(SAMPLES, tmp_path / "a.png", most_bytes=60_000)
    assert size == (tmp_path / "a.png").stat().st_size <= 60_000
    assert Image.open(BytesIO((tmp_path / "a.png").read_bytes())).size == gallery(SAMPLES).size
    with pytest.raises(UserError, match="show fewer, or smaller ones"):
        write_gallery(SAMPLES, tmp_path / "b.png", most_bytes=1000)
    assert not (tmp_path / "b.png").exists()


def test_no_sample_is_no_gallery():
    with pytest.raises(UserError, match="give at least one"):
        gallery([])
