"""demo/score.py: nothing but case, outer spaces and final punctuation is forgiven."""

import pytest

from demo.errors import DemoError
from demo.score import Tally, by_kind, is_correct, normalise, scene_accuracy, table, tally


@pytest.mark.parametrize("text", ["Sim", " sim ", "SIM.", "sim!?", "sim .", "sim…\n"])
def test_case_outer_spaces_and_final_punctuation_are_forgiven(text):
    assert normalise(text) == "sim"
    assert is_correct(text, "Sim")


@pytest.mark.parametrize("text", ["", "nao", "sim sim", "o sim", "s im", "Sim, há", ".sim", "sím", "si"])
def test_nothing_else_is(text):
    assert not is_correct(text, "Sim")


def test_accents_count():
    assert not is_correct("Tres", "Três")
    assert is_correct("TRÊS", "Três")


def test_an_empty_answer_is_refused():
    with pytest.raises(DemoError, match="holds no word"):
        is_correct("", " . ")


def record(kind: str, source: str, right: bool) -> dict:
    return {"kind": kind, "source": source, "answer": "Azul", "prediction": "azul" if right else "verde"}


RECORDS = [
    record("cor", "cenas", True),
    record("texto", "texto", True),
    record("cor", "cenas", False),
    record("forma", "cenas", False),
    record("fotografia", "fotografias", True),
]


def test_counts_by_kind_and_of_scenes():
    assert by_kind(RECORDS) == {
        "cor": Tally(2, 1), "texto": Tally(1, 1), "forma": Tally(1, 0), "fotografia": Tally(1, 1)
    }  # fmt: skip
    assert list(by_kind(RECORDS)) == ["cor", "texto", "forma", "fotografia"]
    assert scene_accuracy(RECORDS) == Tally(3, 1)
    assert tally(RECORDS) == Tally(5, 3) == sum(by_kind(RECORDS).values(), Tally())


def test_the_mark_in_the_file_is_not_believed():
    assert tally([record("cor", "cenas", False) | {"correct": True}]) == Tally(1, 0)


def test_table_has_a_line_a_kind_and_two_sums():
    lines = table(RECORDS).splitlines()
    assert len(lines) == 6
    assert lines[0].split() == ["cor", "1", "of", "2", "50.0%"]
    assert lines[-2].split() == ["scenes", "1", "of", "3", "33.3%"]
    assert lines[-1].split() == ["all", "3", "of", "5", "60.0%"]


def test_wilson_interval_against_published_values():
    """Newcombe 1998 (Statistics in Medicine 17, table I, method 3), printed to four places."""
    for correct, asked, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611),
                                      (1, 29, 0.0061, 0.1718)):  # fmt: skip
        assert Tally(asked, correct).interval() == pytest.approx((low, high), abs=5e-5)
    assert Tally().interval() == (0.0, 1.0)
