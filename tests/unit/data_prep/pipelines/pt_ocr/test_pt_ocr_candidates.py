"""Wrong transcriptions are wrong, in the way that their kind says."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data_prep.config import settings
from data_prep.pipelines.pt_ocr.candidates import KINDS, Candidate, candidate, squeezed
from data_prep.pipelines.pt_ocr.corpus import document
from data_prep.pipelines.pt_ocr.slots import names
from data_prep.text.sentences import sentences

SPARE = ["O gato dorme ao sol.", "Ninguém sabe porquê."]


def many(kind: str, number: int = 150) -> list[tuple[str, Candidate]]:
    found = []
    for seed in range(number):
        rng = Random(seed)
        text = document(rng, **settings("pt_ocr")["document"])["text"]
        if made := candidate(text, rng, SPARE, [kind]):
            found.append((text, made))
    assert len(found) > number / 2, kind
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_candidate_is_never_the_text_nor_the_text_spaced_otherwise(kind):
    for text, made in many(kind):
        assert made.kind == kind and squeezed(made.text) != squeezed(text)
        assert made.text == made.text.strip() and "  " not in made.text and "\n\n\n" not in made.text


def test_a_number_changes_one_digit():
    for text, made in many("number"):
        assert len(made.text) == len(text) and sum(a != b for a, b in zip(made.text, text, strict=True)) == 1
        assert made.before.isdigit() and made.after.isdigit()


@pytest.mark.parametrize(("text", "most"), [("às 14h30", 59), ("a 28 de março", 28)])
def test_hours_and_days_stay_possible(text, most):
    for seed in range(300):
        made = candidate(text, Random(seed), (), ["number"])
        assert made is None or int(made.after) <= most


def test_a_name_is_of_the_same_list():
    for _, made in many("name"):
        assert any({made.before, made.after} <= set(words) for words in names().values())


def test_a_word_changes_one_word():
    for text, made in many("word"):
        assert made.before in text and made.after in made.text
        assert made.text.count("\n") == text.count("\n")


def test_a_dropped_sentence_is_gone_and_the_others_stay():
    for text, made in many("dropped"):
        left = sentences(text)
        left.remove(made.before)
        assert sentences(made.text) == left


def test_an_added_sentence_stands_between_the_others():
    for text, made in many("added"):
        assert made.after in SPARE and made.after not in text
        more = sentences(made.text)
        more.remove(made.after)
        assert more == sentences(text)


def test_kinds_are_drawn_evenly_where_all_fit():
    text = "O Rui chegou a Braga às 14h30, depois do almoço. Vinha cansado."
    drawn = Counter(candidate(text, Random(seed), SPARE).kind for seed in range(1000))
    assert set(drawn) == set(KINDS) and min(drawn.values()) > 140


def test_the_same_seed_is_the_same_candidate():
    text = "O Rui chegou a Braga às 14h30, depois do almoço. Vinha cansado."
    assert candidate(text, Random(5), SPARE) == candidate(text, Random(5), SPARE)


def test_nothing_fits_a_single_word():
    assert candidate("Olá", Random(0)) is None


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abÁ .!\n,1234é«»", min_size=1, max_size=60), st.integers(0, 50))
def test_no_text_gives_itself(text, seed):
    from data_prep.rendering.wrap import normalise

    text = normalise(text)
    made = candidate(text, Random(seed), SPARE) if text else None
    assert made is None or squeezed(made.text) != squeezed(text)
