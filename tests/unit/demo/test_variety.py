"""Forms of either variety in an answer: which, how many, and what is not taken for one."""

import pytest

from demo import variety
from demo.errors import DemoError
from demo.scenes.drawings import COLOURS, PHRASES, THINGS, VARIETIES, Drawing
from demo.variety import Forms, forms_of


def record(prediction, answer=None, source="desenhos"):
    question = next(iter(PHRASES))
    drawn = Drawing("chávena", "amarelo").answer(question, "pt-PT")
    return {"source": source, "question": question, "answer": answer or drawn, "prediction": prediction}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("question", PHRASES)
def test_every_answer_has_two_forms_of_its_variety(thing, question):
    for colour in COLOURS:
        european, brazilian = (forms_of(Drawing(thing, colour).answer(question, name)) for name in VARIETIES)
        assert (european, brazilian) == (Forms(2, 0, 1), Forms(0, 2, 1))


def test_gender_follows_the_name():
    answers = [Drawing("frigorífico", "amarelo").answer(next(iter(PHRASES)), name) for name in VARIETIES]
    assert "um frigorífico amarelo" in answers[0] and "uma geladeira amarela" in answers[1]


def test_a_mixed_answer_counts_under_both_and_parts_of_words_under_none():
    assert forms_of("O desenho está mostrando um autocarro verde.") == Forms(1, 1, 1)
    assert forms_of("Um microtrem demonstrando.") == Forms(0, 0, 1, 1)
    assert forms_of("") == Forms(answers=1, neither=1)


def test_shares():
    records = [record("Está se vendo um trem."), record("Um comboio."), record("nada"), record("trem", source="cenas")]
    found = variety.forms(records)
    assert found == Forms(1, 2, 3, 1) and found.brazilian_share == pytest.approx(2 / 3)
    assert Forms().brazilian_share == 1.0  # who says nothing has corrected nothing
    assert "66.7% of the forms are pt-BR (2 of 3, in 3 answers, 1 without any)" in variety.line("x", found)


def test_named_right_in_either_variety():
    question = next(iter(PHRASES))
    right = [Drawing("chávena", "amarelo").answer(question, name) for name in VARIETIES]
    wrong = Drawing("chávena", "azul").answer(question, "pt-PT")
    assert variety.named([record(text) for text in (*right, wrong)]) == (3, 2)
    with pytest.raises(DemoError, match="about no drawing"):
        variety.named([record("x", answer="Um gato.")])
