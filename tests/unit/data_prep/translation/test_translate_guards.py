"""The guards of a translation: what is right passes all of them, and each fault is caught by its name."""

import json
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from data_prep.translation import numbers
from data_prep.translation.guards import GUARDS, Pair, check
from data_prep.translation.spans import MarkError, find, instructions, mask, unmask

GOOD = [
    ("What is the man in the <image> holding?", "O que é que o homem na <image> está a segurar?"),
    (
        "The tower is 1,234.5 m tall and cost $3 million in the 1990s.",
        "A torre tem 1234,5 m de altura e custou 3 milhões de dólares nos anos 90.",
    ),
    ("There are two dogs and 3 cats.", "Há 2 cães e três gatos."),
    (
        "It was built in the 19th century by Gustave Eiffel in Paris, France.",
        "Foi construída no século XIX por Gustave Eiffel, em Paris, França.",
    ),
    ("The Eiffel Tower is in Paris.", "A Torre Eiffel fica em Paris."),
    ("The flight to London leaves at 5 pm.", "O voo para Londres parte às 17h00."),
    (
        "About 2 billion people, 45% of them in the USA, weigh 10 kg.",
        "Cerca de 2 mil milhões de pessoas, 45 % das quais nos EUA, pesam 10 kg.",
    ),
    (
        "Which one?\nA. a red car\nB. a blue car\nAnswer with the option's letter from the given choices directly.",
        "Qual deles?\nA. um carro vermelho\nB. um carro azul\nResponda diretamente com a letra da opção correta.",
    ),
    ("No, the box [0.1, 0.2, 0.3, 0.4] holds $x^2$.", "Não, a caixa [0.1, 0.2, 0.3, 0.4] contém $x^2$."),
    ("The population of New York City is 8,804,190.", "A população de Nova Iorque é de 8 804 190 habitantes."),
    (
        "DNA was described by Watson and Crick on April 25, 1953.",
        "O ADN foi descrito por Watson e Crick a 25 de abril de 1953.",
    ),
    (
        "The speed limit is 30 mph; 10 miles is about 16 km.",
        "O limite de velocidade é de 30 mph; 10 milhas são cerca de 16 km.",
    ),
    ("Step 1: Calculate. The answer is B.", "Passo 1: Calcule. A resposta é B."),
    ('{"colour": "red", "n": 2}', '{"colour": "vermelho", "n": 2}'),
    ("# Title\n\n- one dog\n- a cat\n\n**Note** it.", "# Título\n\n- um cão\n- um gato\n\n**Repare** nisso."),
    ("The statue stands between $5 and $10.", "A estátua custa entre 5 $ e 10 $."),
    ("Run `pip install x` and read https://a.org/b?c=1.", "Execute `pip install x` e leia https://a.org/b?c=1."),
]


@pytest.mark.parametrize(("source", "target"), GOOD)
def test_a_right_translation_passes_every_guard(source, target):
    assert check(Pair(source, target, "assistant")) == []


PAIRS = Path(__file__).with_name("translation_pairs.tsv").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("line", PAIRS, ids=range(len(PAIRS)))
def test_no_guard_cries_wolf(line):
    """Translations by a person, of many kinds of text; \\n is a line break."""
    role, source, target = (part.replace("\\n", "\n") for part in line.split("\t"))
    assert check(Pair(source, target, role)) == []


BAD = [
    ("empty", "A dog.", " "),
    ("protected", "What is in the <image>?", "O que está na imagem?"),
    ("protected", "Look at <image>.", "Olhe para <image> e <image>."),
    ("protected", "The dog is at [0.1, 0.2, 0.3, 0.4].", "O cão está em [0.1, 0.2, 0.4, 0.3]."),
    ("protected", "The dog is at (12, 40),(80, 90).", "O cão está em (12, 40),(80, 91)."),
    ("protected", "<ref>the dog</ref><box>(1,2),(3,4)</box>", "<ref>o cão</ref><box>(1,2),(3,5)</box>"),
    ("protected", "Thus $\\frac{1}{2} x$ holds.", "Logo, $\\frac{1}{3} x$ verifica-se."),
    ("protected", "So \\boxed{\\frac{1}{2}} is right.", "Portanto, \\boxed{1/2} está certo."),
    ("protected", "Call `print(x)` first.", "Chame primeiro `imprimir(x)`."),
    ("protected", "```python\nprint('dog')\n```\nThat is the code.", "```python\nprint('cão')\n```\nEsse é o código."),
    ("protected", "See https://example.org/dog for more.", "Veja mais em https://exemplo.org/cão."),
    ("instruction", "Is it a dog? Answer yes or no.", "É um cão? Responda com verdadeiro ou falso."),
    ("number", "There are 14 dogs.", "Há 15 cães."),
    ("number", "The value is 3.14.", "O valor é 3,41."),
    ("number", "He scored 12 points in 30 games.", "Marcou 12 pontos."),
    ("number", "It costs 1,234 euros.", "Custa 1,2345 euros."),
    ("number", "Several dogs are there.", "Há 7 cães."),
    ("scale", "It cost 2 billion euros.", "Custou 2 biliões de euros."),
    ("unit", "It is 10 miles long.", "Tem 10 quilómetros de comprimento."),
    ("unit", "It weighs 5 kg.", "Pesa 5."),
    ("unit", "It costs $20.", "Custa 20 euros."),
    ("name", "This is a portrait of Amália Rodrigues.", "Este é um retrato de uma cantora."),
    ("name", "The logo says NVIDIA in green.", "O logótipo está a verde."),
    ("option", "Which?\nA. dog\nB. cat", "Qual?\nA. cão\nC. gato"),
    ("option", "Which?\nA. dog\nB. cat", "Qual?\nB. cão\nA. gato"),
    ("option", "Which?\nA. dog\nB. cat", "Qual?\na) cão\nb) gato"),
    ("option", "Which?\nA. car\nB. carriage", "Qual?\nA. carro\nB. carro"),
    ("option", "The correct option is (B) here.", "A opção correta é a segunda."),
    ("option", "The answer is C.", "A resposta é D."),
    ("yes_no", "Yes, there is a dog.", "Não, não há nenhum cão."),
    ("yes_no", "No.", "Talvez."),
    ("json_format", '{"colour": "red"}', '{"cor": "vermelho"}'),
    ("json_format", '["red", 2]', '["vermelho", 3]'),
    ("json_format", '{"colour": "red"}', "A cor é vermelho."),
    ("markdown", "- dogs run\n- cats sleep", "Os cães correm e os gatos dormem."),
    ("markdown", "| dog | cat |\n|---|---|\n| one | two |", "| cão | gato |\n|---|---|\n| um dois |"),
    ("markdown", "First it rains.\n\nThen it stops.", "Primeiro chove. Depois para."),
    ("commentary", "The dog runs in the park.", "Aqui está a tradução: o cão corre no parque."),
    ("commentary", "The dog runs in the park.", "Tradução para português: o cão corre no parque."),
    ("length", "The dog runs quickly through the green park in the morning.", "O cão corre."),
    ("length", "A dog.", "Um cão castanho e muito simpático que corre alegremente pelo parque verde " * 2),
    ("repetition", "The dog runs.", "o cão corre no parque e " * 6),
    ("untranslated", "The dog is in the park with his ball.", "The dog is in the park with his ball."),
    ("untranslated", "What is the colour of the car that you see?", "What is a cor of the carro that you see?"),
]


@pytest.mark.parametrize(("guard", "source", "target"), BAD)
def test_each_fault_is_caught_by_its_name(guard, source, target):
    found = check(Pair(source, target, "assistant"))
    assert guard in [fault.guard for fault in found], found
    assert all(fault.detail and "\n" not in fault.detail for fault in found)


def test_every_guard_has_a_case():
    assert {guard for guard, *_ in BAD} | {"glossary", "variety"} == set(GUARDS)


Evidence = namedtuple("Evidence", "start end rule explanation variety strength")
BR = [Evidence(2, 8, "vocabulary", "em Portugal diz-se autocarro", "pt-BR", "strong")]


def evidence(text):
    """The agreed form of nemo_amalia.variety.evidence.evidence."""
    at = text.find("ônibus")
    found = [(at, at + 6, "vocabulary", "em Portugal diz-se autocarro")] if at >= 0 else []
    return SimpleNamespace(variety="pt-BR" if found else "pt-PT", score=1.0, evidence=found)


def test_brazilian_portuguese_is_refused_with_its_evidence():
    pair = Pair("The bus stops here.", "O ônibus para aqui.", evidence=evidence)
    (fault,) = check(pair)
    assert fault.guard == "variety" and "«ônibus» (em Portugal diz-se autocarro)" in fault.detail
    assert check(Pair("The bus stops here.", "O autocarro para aqui.", evidence=evidence)) == []
    # The filter's evidence says more than the agreed four, and of either variety.
    full = SimpleNamespace(variety="pt-BR", score=1.0, evidence=[Evidence(0, 1, "r", "artigo", "pt-PT", "weak"), *BR])
    (fault,) = check(Pair("The bus stops here.", "O ônibus para aqui.", evidence=lambda text: full))
    assert fault.detail.endswith("Indícios: «ônibus» (em Portugal diz-se autocarro)")
    # Words that were not translated, such as code, are no evidence.
    assert check(Pair("Print `ônibus` here.", "Imprima `ônibus` aqui.", evidence=evidence)) == []


def test_a_term_is_translated_in_one_way():
    glossary = [("shelf", "prateleira"), ("Statue of Liberty", "Estátua da Liberdade")]
    assert check(Pair("Two shelf units.", "Duas prateleiras.", glossary=glossary)) == []
    (fault,) = check(Pair("The shelf is red.", "A estante é vermelha.", glossary=glossary))
    assert fault.guard == "glossary" and "«shelf» traduz-se por «prateleira»" in fault.detail
    # What the glossary declares is no lost name.
    assert check(Pair("I saw the Statue of Liberty.", "Vi a Estátua da Liberdade.", glossary=glossary)) == []


def test_quoted_words_stay_where_a_data_set_asks_for_it():
    source, target = 'What does the sign "Boat for sale" mean?', 'O que significa a placa "Barco à venda"?'
    assert check(Pair(source, target)) == []
    assert [fault.guard for fault in check(Pair(source, target, quotes=True))] == ["protected"]


# Properties.

SPAN = st.sampled_from(
    ["<image>", "`x = 1`", "$a_1+b$", "\\(x\\)", "[0.1, 0.2, 0.3, 0.4]", "(1, 2),(3, 4)", "https://a.pt/b", "⟦", "⟧1"]
    + ["<box>(1,2)</box>", "```\ncode\n```", "\\boxed{7}", "Answer yes or no."]
)
WORDS = st.text(st.sampled_from("abc áé,.?\n "), max_size=12)
TEXT = st.lists(st.one_of(SPAN, WORDS), max_size=8).map(" ".join)


@settings(deadline=None)  # the machine may be busy
@given(TEXT)
def test_masking_and_unmasking_give_the_text_with_fixed_instructions(text):
    masked = mask(text)
    restored = unmask(masked.text, masked)
    assert restored == "".join(_put(text))
    assert mask(text, fixed=False).spans == find(text)
    assert unmask(mask(text, fixed=False).text, mask(text, fixed=False)) == text


@given(TEXT)
@settings(deadline=None)
def test_what_a_model_sees_and_its_edges_are_the_whole_text(text):
    masked = mask(text)
    before, after = masked.edges
    assert before + masked.core + after == masked.text and masked.core == masked.core.strip()
    put_back = unmask(before + masked.core + after, masked)
    assert put_back == "".join(_put(text))


def _put(text):
    at = 0
    for span in find(text, fixed=True):
        yield text[at : span.start]
        yield instructions()[span.text.lower()] if span.kind == "instruction" else span.text
        at = span.end
    yield text[at:]


@settings(deadline=None)  # the machine may be busy
@given(TEXT, st.data())
def test_a_mark_lost_repeated_or_made_up_is_an_error(text, data):
    masked = mask(text)
    assume(masked.spans)
    number = data.draw(st.integers(1, len(masked.spans)))
    mark = f"⟦{number}⟧"
    for wrong in (masked.text.replace(mark, ""), masked.text + mark, masked.text + f"⟦{len(masked.spans) + 1}⟧"):
        with pytest.raises(MarkError, match="as marcas"):
            unmask(wrong, masked)
    with pytest.raises(MarkError):
        unmask(masked.text + "⟦x", masked)


@example("0,0")
@example(",0")
@example("0A0")
@example("A0'")
@example("1.2.31,234.5")
@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=300))
def test_guards_never_break_and_a_text_is_a_faithful_copy_of_itself(text):
    faults = {fault.guard for fault in check(Pair(text, text, "assistant"))}
    # A copy has everything; what it may lack is the translation.
    assert faults <= {"untranslated", "instruction", "yes_no", "scale", "commentary"}, faults


NUMBERS = st.one_of(
    st.integers(21, 10**9).map(str),
    st.integers(1000, 10**9).map(lambda n: f"{n:,}"),
    st.decimals(21, 10**6, places=2, allow_nan=False).map(str),
    st.decimals(21, 10**6, places=2, allow_nan=False).map(lambda d: f"{d:,}"),
)
AS_PORTUGUESE = {
    "verbatim": lambda n: n,
    "comma": lambda n: n.replace(",", "").replace(".", ","),
    "points": lambda n: n.replace(",", "·").replace(".", ",").replace("·", "."),
    "spaces": lambda n: n.replace(",", "\u00a0").replace(".", ","),
}


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(NUMBERS, st.sampled_from(sorted(AS_PORTUGUESE))), max_size=5), st.randoms())
def test_numbers_are_the_same_in_either_notation_and_any_order(drawn, random):
    source = "a " + " b ".join(n for n, _ in drawn) + " c"
    written = [AS_PORTUGUESE[form](n) for n, form in drawn]
    random.shuffle(written)
    assert numbers.compare(source, "x " + " y ".join(written) + " z") == ([], [])


@settings(deadline=None)  # the machine may be busy
@given(st.lists(NUMBERS, min_size=1, max_size=5, unique=True), st.data())
def test_a_number_that_is_lost_or_changed_is_seen(drawn, data):
    lost = data.draw(st.sampled_from(drawn))
    kept = [n for n in drawn if n is not lost]
    source, target = " a ".join(drawn), " a ".join(kept)
    missing, added = numbers.compare(source, target)
    assert missing == [lost.replace(",", "")] and added == []
    other = "31415926535897"
    missing, added = numbers.compare(source, " a ".join([*kept, other]))
    assert missing == [lost.replace(",", "")] and added == [other]


@pytest.mark.parametrize(("numeral", "value"), [("XIX", 19), ("IV", 4), ("XXI", 21), ("XLII", 42), ("C", 100)])
def test_roman_numerals(numeral, value):
    assert numbers.roman(numeral) == value


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=4))
def test_json_keeps_its_shape_whatever_its_words_become(value):
    source = json.dumps(value)
    other = json.dumps({k: "outra coisa" if isinstance(v, str) else v for k, v in value.items()})
    guard = GUARDS["json_format"]
    assert guard(Pair(source, other)) is None
    assert guard(Pair(source, json.dumps({**value, "mais uma": 1}))) is not None
