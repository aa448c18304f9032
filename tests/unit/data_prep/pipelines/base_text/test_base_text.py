"""base_text: paragraphs, sentences, questions; every territory's text is one of whole sentences."""

import random

import pytest
from engine_runs import make, settings

from data_prep.engine import Run
from data_prep.pipelines.base_text.pipeline import pipeline
from data_prep.pipelines.base_text.questions import ask_about_a_sentence, load_questions
from data_prep.pipelines.base_text.sources import read_texts, territories
from data_prep.pipelines.base_text.text import sentences_of
from nemo_amalia.utils.errors import UserError

TEXT = """O mercado abre às sete. O Sr. Matos chega sempre primeiro. «Hoje há carapau!», grita ele.

Curto.

O mercado abre às sete. O Sr. Matos chega sempre primeiro. «Hoje há carapau!», grita ele.

Uma frase só, embora comprida o bastante para ficar acima do mínimo de caracteres
"""


def conf_of(folder, **texts):
    given = {"path": None, "licence": None, "language": "pt-PT"} | texts
    tasks = ["first", "last", "nth", "count"]
    own = {"texts": given, "shortest": 60, "longest": 4000, "fewest_sentences": 2, "tasks": tasks}
    return settings(folder, name="base_text", **own)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Um. Dois? Três!", ["Um.", "Dois?", "Três!"]),
        ("O Sr. Matos e a Dra. Ana vieram. Ficaram.", ["O Sr. Matos e a Dra. Ana vieram.", "Ficaram."]),
        ("«Vem!» Ele veio… Depois, partiu.", ["«Vem!»", "Ele veio…", "Depois, partiu."]),
        ("Custa 3.50 euros. É caro.", ["Custa 3.50 euros.", "É caro."]),
        ("O art. 5.º do código. Fim.", ["O art. 5.º do código.", "Fim."]),
        ("«Hoje há carapau!», grita ele. Óptimo.", ["«Hoje há carapau!», grita ele.", "Óptimo."]),
        ("sem fim", ["sem fim"]),
    ],
)
def test_sentences(text, expected):
    assert sentences_of(text) == expected
    assert " ".join(expected) == text


def test_a_folder_of_texts(tmp_path):
    (tmp_path / "textos").mkdir()
    (tmp_path / "textos" / "a.txt").write_text(TEXT, encoding="utf-8")
    conf = conf_of(tmp_path, path=str(tmp_path / "textos"), licence="CC0-1.0")
    ledgers, items = make(conf, pipeline(conf))
    assert [dict(ledger.dropped()) for ledger in ledgers] == [{"too_short": 1, "few_sentences": 1}, {}]
    (item,) = items
    assert item["sample"]["sentences"] == sentences_of(TEXT.split("\n")[0])
    assert (item["sample"]["source"], item["sample"]["licence"]) == ("a.txt", "CC0-1.0")


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="has no .txt file: give texts.path"):
        list(read_texts(path=str(tmp_path), licence="CC0-1.0", language="pt-PT"))
    (tmp_path / "a.txt").write_bytes(b"\xe9")
    with pytest.raises(UserError, match="have no licence: give"):
        list(read_texts(path=str(tmp_path), licence=None, language="pt-PT"))
    with pytest.raises(UserError, match="a.txt is not UTF-8"):
        list(read_texts(path=str(tmp_path), licence="CC0-1.0", language="pt-PT"))


def test_territories_are_texts_of_whole_sentences():
    texts = list(territories())
    assert len(texts) > 200
    for one in texts:
        sentences = sentences_of(one["text"])
        assert len(sentences) in (4, 5), one["text"]
        assert one["licence"] == "Unicode-3.0" and one["source"].startswith("Unicode CLDR")
    (portugal,) = [one["text"] for one in texts if "«Portugal»" in one["text"]]
    assert portugal == (
        "Nas tabelas internacionais, «Portugal» tem o código PT. A língua oficial é o português. "
        "A moeda em uso chama-se «euro». O código dessa moeda é EUR. Nos calendários, a semana começa no domingo."
    )


def test_answers_are_of_the_text():
    questions = load_questions()
    sentences = [f"Frase {i}." for i in range(12)]
    asked = set()
    for number in range(200):
        run = Run(0, "ask", str(random.Random(number).random()))
        sample = {"text": " ".join(sentences), "sentences": sentences}
        made = ask_about_a_sentence(sample, run, questions=questions, tasks=["first", "last", "nth", "count"])
        question, answer = (turn["content"] for turn in made["messages"])
        asked.add(question.split("\n\n")[0])
        assert question.endswith(sample["text"]) and "{" not in question
        if "primeira" in question or "começa" in question:
            assert answer == "Frase 0."
        elif "última" in question or "acaba" in question:
            assert answer == "Frase 11."
        elif "uantas" in question or "Conta " in question:
            assert answer == "O texto tem 12 frases."
        else:
            assert answer in sentences
    assert len(asked) > 12
    with pytest.raises(UserError, match="task middle is not known: expected some of first, last"):
        ask_about_a_sentence({"text": "", "sentences": [""]}, Run(0, "a", "b"), questions=questions, tasks=["middle"])
