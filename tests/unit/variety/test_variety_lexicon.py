"""The lists themselves: they parse, inflect, and do not contradict each other."""

import re
from collections import defaultdict

import pytest

from nemo_amalia.variety.lexicon import Words, conjugate, entries, inflect, parse_guard, plural, rows
from nemo_amalia.variety.words import PAIRS

ALL = [entry for name in PAIRS for entry in entries(name)]


def test_several_hundred_entries_with_inflections():
    assert len({entry.explanation for entry in ALL}) > 1000
    assert len({(entry.variety, entry.tokens) for entry in ALL}) > 4000


def test_no_form_stands_on_both_sides_without_a_guard():
    sides = defaultdict(set)
    for entry in ALL:
        if entry.guard is None:
            sides[entry.tokens].add(entry.variety)
    assert not {" ".join(tokens) for tokens, varieties in sides.items() if len(varieties) > 1}


def test_lists_are_lower_case_and_have_the_strengths():
    assert not [entry.tokens for entry in ALL if " ".join(entry.tokens) != " ".join(entry.tokens).lower()]
    assert {entry.strength for entry in ALL} == {"strong", "medium", "weak"}


@pytest.mark.parametrize("name", ["orthography", "grammar"])
def test_patterns_compile(name):
    for row in rows(name):
        for pattern in row[3:5]:
            re.compile(pattern)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("autocarro", "autocarros"), ("comboião", "comboiões"), ("aval", "avais"), ("papel", "papéis"), ("lápis", "lápis")]
    + [("talher", "talheres"), ("bombom", "bombons"), ("lençol", "lençóis"), ("rapaz", "rapazes")],
)
def test_plural(word, expected):
    assert plural(word) == expected


def test_adjectives_have_four_forms():
    assert inflect("israelita", "n") == ["israelita", "israelitas"]
    assert inflect("utilizador", "a") == ["utilizador", "utilizadores", "utilizadora", "utilizadoras"]
    assert inflect("polaco", "a") == ["polaco", "polacos", "polaca", "polacas"]


@pytest.mark.parametrize(
    ("verb", "some"),
    [
        ("registar", {"registo", "registámos", "registe", "registavam", "registando", "registados"}),
        ("checar", {"cheque", "cheques", "checou"}),
        ("planejar", {"planeje", "planejamos"}),
        ("alcançar", {"alcance", "alcancei"}),
        ("torcer", {"torço", "torce", "torcendo"}),
        ("sediar", {"sediou"}),
        ("aderir", {"aderiu", "aderindo"}),
    ],
)
def test_conjugation(verb, some):
    assert some <= set(conjugate(verb))


def test_a_verb_must_be_one():
    with pytest.raises(ValueError, match="no verb in -ar"):
        conjugate("mesa")


def test_guard():
    guard = parse_guard("<de|o !>e_gravata near".replace(" near", " +log* -gravata"))
    tokens = "de fato e gravata".split()
    assert not guard.allows(tokens, 1, 2, False, False)
    assert guard.allows("login de fato aqui".split(), 2, 3, False, False)
    assert not guard.allows("entrou de fato aqui".split(), 2, 3, False, False)


def test_guard_of_a_sentence_start():
    guard = parse_guard("<^|,")
    assert guard.allows(["nossa"], 0, 1, True, False)
    assert guard.allows([",", "nossa"], 1, 2, False, False)
    assert not guard.allows(["a", "nossa"], 1, 2, False, False)


def test_a_wrong_guard_is_named():
    with pytest.raises(ValueError, match="expected >, <"):
        parse_guard("~de")


def test_a_wrong_item_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("nemo_amalia.variety.lexicon.LEXICON", tmp_path)
    (tmp_path / "vocabulary.tsv").write_text("pt-PT\tpt-BR\nautocarro/x\tônibus\n")
    with pytest.raises(ValueError, match="vocabulary.tsv has 'autocarro/x'"):
        list(entries("vocabulary"))
    (tmp_path / "vocabulary.tsv").write_text("pt-PT\tpt-BR\nautocarro ônibus\n")
    with pytest.raises(ValueError, match="line 2 has 1 columns, expected 2"):
        list(entries("vocabulary"))


def test_words_of_a_guard():
    words = Words.of(["de", "salv*", "o_ficheiro"])
    assert words.begin(["salvar"], 0) and words.begin(["o", "ficheiro"], 0) and not words.begin(["o", "carro"], 0)
    assert words.end(["o", "ficheiro"], 2) and not words.end([], 0) and words.among(["x", "salvou"])


@pytest.mark.parametrize(
    ("word", "other"), [("dezesseis", "dezasseis"), ("dezenove", "dezanove"), ("têm de", "têm que"), ("a gente", "nós")]
)
def test_an_explanation_names_the_counterpart_of_its_word(word, other):
    """Not the first words of its line: `dezanove` is not what is said for `dezesseis`."""
    (said,) = {entry.explanation for entry in ALL if entry.tokens == tuple(word.split())}
    assert re.search(rf"says {other}\b", said), said


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("joão", "joão: pt-BR has no article before a name"),
        ("março", "março: pt-BR writes months in lower case"),
        ("niver", "niver: pt-PT says aniversário"),
        ("se for caso disso", "se for caso disso: pt-BR says se for o caso"),
    ],
)
def test_an_explanation_reads_as_a_sentence(word, said):
    assert {entry.explanation for entry in ALL if entry.tokens == tuple(word.split())} == {said}
