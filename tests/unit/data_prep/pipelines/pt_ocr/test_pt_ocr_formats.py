"""Each format writes what it reads back."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data_prep.pipelines.pt_ocr.formats import FORMATS, Verdict, number_words
from data_prep.rendering.wrap import normalise
from nemo_amalia.utils.errors import UserError

WORD = st.text(st.characters(codec="latin-1", categories=("L", "N", "P", "S")), min_size=1, max_size=8)
TEXT = st.lists(st.lists(WORD, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=5).flatmap(
    lambda rows: st.lists(st.sampled_from(["\n", "\n\n"]), min_size=len(rows), max_size=len(rows)).map(
        lambda joints: normalise("".join(a + b for a, b in zip(rows, joints, strict=True)))
    )
)
TEXT = TEXT.filter(lambda t: t and "Documento" not in t and "---" not in t)
SENTENCE = st.lists(WORD, min_size=1, max_size=6).map(" ".join)
PAYLOADS = {
    "transcription": TEXT.map(lambda t: [t]),
    "all_documents": st.lists(TEXT, min_size=2, max_size=3),
    "sentence": SENTENCE,
    "count": st.integers(1, 60),
    "hallucination": st.one_of(st.just(Verdict(True)), TEXT.map(lambda t: Verdict(False, t))),
}


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, formats in FORMATS.items() for name in formats])
@hypothesis_settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 3))
def test_what_is_written_is_read_back(task, name, data, seed):
    written = FORMATS[task][name]
    payload = data.draw(PAYLOADS[task].filter(written.fits))
    assert written.read(written.write(payload, Random(seed))) == payload


def test_numbers_in_words():
    assert [number_words(n) for n in (1, 2, 14, 16, 20, 21, 35, 99)] == [
        "uma", "duas", "catorze", "dezasseis", "vinte", "vinte e uma", "trinta e cinco", "noventa e nove",
    ]  # fmt: skip
    with pytest.raises(UserError, match="expected 1 to 99"):
        number_words(100)
