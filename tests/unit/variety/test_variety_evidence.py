"""The lexical part of the pt-PT filter: what is evidence, what is not, and issue 6's targets on our own sentences."""

import pytest

from benchmarks.variety import figures
from benchmarks.variety_corpora import ours
from nemo_amalia.variety.evidence import BRAZILIAN, PORTUGUESE, UNKNOWN, Scale, evidence
from nemo_amalia.variety.lexicon import rows

#: grammar rule -> a text that shows it
GRAMMAR = {
    "estar_gerund": "Ela está lendo um livro.",
    "seguir_gerund": "As equipas seguem treinando.",
    "ficar_gerund": "Ele ficou olhando.",
    "continuar_gerund": "O preço continua subindo.",
    "noun_gerund": "Na imagem, um homem lendo um livro.",
    "estar_a_infinitive": "Ela está a ler um livro.",
    "se_estar_a": "A obra que se está a fazer.",
    "ficar_a_infinitive": "Ele ficou a olhar.",
    "noun_a_infinitive": "Um homem a ler um livro.",
    "proclisis_first": "Te espero amanhã.",
    "clitic_between": "Amanhã vou te dizer tudo.",
    "clitic_between_k": "Não vou te dizer nada.",
    "ter_clitic": "Ela tinha me dito isso.",
    "pronoun_proclisis": "Ele me disse isso.",
    "noun_proclisis": "O ministro se reuniu com eles.",
    "clitic_climbing": "Não te vou dizer nada.",
    "clitic_climbing_modal": "Não te posso dar isso.",
    "em_um": "Moram em um prédio.",
    "para_mim_infinitive": "Deixou um bolo para mim comer.",
    "preposition_possessive": "Estava em seu carro.",
    "with_possessive": "Saiu com seu irmão.",
    "bare_possessive": "Verifique sua caixa de entrada.",
    "article_possessive": "Vi o seu carro.",
    "ate_article": "Esperou até o fim.",
    "subject_enclisis": "O ministro reuniu-se com eles.",
    "any_gerund": "Saiu da sala cantando.",
    "ter_existential": "Tem um livro ali.",
    "start_a_infinitive": "A carregar o programa...",
    "start_gerund": "Carregando o programa...",
    "precisar_infinitive": "Você precisa levar água.",
    "precisar_de_infinitive": "Ele precisa de levar água.",
    "se_preterite": "O poeta nasceu em 1902 e se tornou famoso.",
    "clause_proclisis": "Senta aí e me conta tudo.",
    "subject_proclisis": "O médico me deu alta.",
}


def found(text: str) -> set[str]:
    return {piece.rule for piece in evidence(text).evidence}


def forms(text: str) -> dict[str, str]:
    return {text[piece.start : piece.end]: piece.variety for piece in evidence(text).evidence}


def test_every_grammar_rule_has_an_example():
    assert set(GRAMMAR) == {row[0] for row in rows("grammar")}


@pytest.mark.parametrize("rule", GRAMMAR)
def test_grammar(rule):
    assert rule in found(GRAMMAR[rule])


@pytest.mark.parametrize(
    ("word", "variety"),
    [
        ("ônibus", BRAZILIAN),
        ("autocarros", PORTUGUESE),
        ("econômico", BRAZILIAN),
        ("económico", PORTUGUESE),
        ("fenômenos", BRAZILIAN),
        ("receção", PORTUGUESE),
        ("acção", PORTUGUESE),
        ("directores", PORTUGUESE),
        ("falámos", PORTUGUESE),
        ("tranqüilo", BRAZILIAN),
        ("idéia", BRAZILIAN),
        ("úmida", BRAZILIAN),
        ("indenizações", BRAZILIAN),
        ("registou", PORTUGUESE),
        ("registraram", BRAZILIAN),
        ("dezasseis", PORTUGUESE),
        ("bilhões", BRAZILIAN),
        ("connosco", PORTUGUESE),
        ("pra", BRAZILIAN),
        ("né", BRAZILIAN),
        ("contacte-nos", PORTUGUESE),
        ("dir-te-ei", PORTUGUESE),
        ("compraste", PORTUGUESE),
        ("soubesses", PORTUGUESE),
        ("cantavas", PORTUGUESE),
        ("cantarás", PORTUGUESE),
        ("vou-te", PORTUGUESE),
    ],
)
def test_one_word(word, variety):
    assert evidence(word).variety == variety or evidence(word).evidence[0].variety == variety


@pytest.mark.parametrize(
    "text",
    [
        "A fêmea e o estômago do animal.",
        "O avô também tem dois filhos.",
        "O trem de cozinha.",
        "A tela do pintor está no museu.",
        "O ciclo celular e a membrana celular.",
        "Comprou um fato e uma gravata.",
        "O arquivo da Torre do Tombo.",
        "Quero saber quando chega o mundo do comando.",
        "Está a par do assunto.",
        "Dirigiu a empresa durante dez anos.",
        "A facção recebeu um impacto compacto.",
        "Não sabe se chegou, e perguntou se partiram.",
        "Disse que o poeta nasceu ali e se tornou famoso.",
        "O homem que o médico me mostrou.",
        "Interesses, classes, oitavas, escravas e atrás.",
        "Tirou a tampa e apertou o parafuso.",
        "Pokémon",
        "",
        "12345 -- !!!",
    ],
)
def test_what_both_use_is_no_evidence(text):
    verdict = evidence(text)
    assert not verdict.evidence and verdict.variety == UNKNOWN and verdict.score == 0


@pytest.mark.parametrize(
    ("text", "form", "variety"),
    [
        ("De fato, choveu.", "fato", BRAZILIAN),
        ("O fato de ele vir é bom.", "fato", BRAZILIAN),
        ("Vestia um fato de banho azul.", "fato de banho", PORTUGUESE),
        ("Clique no botão da tela inicial.", "tela", BRAZILIAN),
        ("O trem chegou atrasado.", "trem", BRAZILIAN),
        ("As propinas da universidade subiram.", "propinas", PORTUGUESE),
        ("O esquema de propina da empreiteira.", "propina", BRAZILIAN),
        ("Uma fila e uma bicha nas Finanças.", "bicha", PORTUGUESE),
        ("Falei com ele em Janeiro.", "Janeiro", PORTUGUESE),
        ("O controle de qualidade e o controle da porta.", "controle", BRAZILIAN),
    ],
)
def test_guards(text, form, variety):
    assert forms(text)[form] == variety


def test_months_of_a_place_are_no_evidence():
    assert "Janeiro" not in forms("Mora no Rio de Janeiro.")


def test_spans_are_of_the_text_as_given():
    text = "\u0130stanbul: «o AUTOCARRO», o ecrã.\tVocê está\nlendo?"  # İ grows in lower case
    for piece in evidence(text).evidence:
        assert 0 <= piece.start < piece.end <= len(text)
    assert {"AUTOCARRO", "ecrã", "Você"} <= set(forms(text))


def test_repeating_a_form_adds_nothing():
    once, often = evidence("Vi o ônibus."), evidence("Vi o ônibus. Vi o ônibus. Vi o ônibus.")
    assert often.score == once.score and len(often.evidence) == 3


def test_a_form_of_both_varieties_counts_for_each():
    both = evidence("Comprou um fato azul, mas de fato não o usou.")
    assert [piece.variety for piece in both.evidence] == [PORTUGUESE, BRAZILIAN] and both.variety == UNKNOWN


def test_a_name_counts_less():
    assert 0 < evidence("Falei com o Antônio.").score < evidence("Isto é econômico.").score


def test_titles_are_no_possessives():
    assert not found("Casa de Nossa Senhora do Carmo") & {"preposition_possessive", "bare_possessive"}


def test_score_is_what_the_scale_says():
    weights = {s: w for w, s in enumerate(("hint", "weak", "medium", "strong"), 1)}
    scale = Scale({PORTUGUESE: weights, BRAZILIAN: weights}, 4.0, 4.0)
    assert evidence("Vi o ônibus.", scale).score == 4 and evidence("Vi o ônibus.", scale).variety == BRAZILIAN
    assert evidence("Vi o autocarro.", scale).score == -4
    assert evidence("Vi o autocarro e o ônibus.", scale).variety == UNKNOWN


def test_probability_follows_the_score():
    assert evidence("Vi o ônibus.").brazilian > 0.9 > 0.1 > evidence("Vi o autocarro.").brazilian
    assert evidence("Vi um gato.").brazilian == 0.5


def test_explanations_name_the_other_variety():
    (piece,) = evidence("O ônibus partiu.").evidence
    assert "autocarro" in piece.explanation and PORTUGUESE in piece.explanation


@pytest.mark.parametrize("part", ["dev", "natural_dev", "heldout", "natural_heldout"])
def test_targets(part):
    """Precision 0.97 and false alarms under 1 % (issue 6); recall 0.80 where another author wrote what we never read.

    docs/data_prep/variety.md says where recall stands on text that nobody wrote to show a variety.
    """
    f = figures(ours(part))
    assert f["precision"] >= 0.97 and f["false_alarms"] < 0.01
    assert f["recall"] >= (0.8 if part != "dev" else 0.65)
    assert min(f["pt-PT"], f["pt-BR"]) >= 80


def test_labelled_sentences_none_twice():
    items = [item for part in ("dev", "heldout", "natural_dev", "natural_heldout") for item in ours(part)]
    assert len(items) >= 1000 and len({item.text for item in items}) == len(items)
    assert {item.variety for item in items} == {PORTUGUESE, BRAZILIAN, "both"}


def test_an_emptied_cache_changes_no_verdict(monkeypatch):
    text = "Você está usando o ônibus econômico; falámos com o utilizador."
    expected = evidence(text)
    monkeypatch.setattr("nemo_amalia.variety.words.MOST", 3)
    assert evidence(text) == expected == evidence(text)
