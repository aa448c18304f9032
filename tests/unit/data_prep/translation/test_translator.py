"""Translating conversations, against the scripted double: good, lossy, Brazilian and format-breaking models."""

import asyncio
import json
import re
from types import SimpleNamespace

import pytest
from model_double import ModelDouble, Reply, texts

from data_prep.models.ask import ModelError, Models
from data_prep.models.routes import routes_from
from data_prep.pipelines.translate import report
from data_prep.translation.translator import Options, Translator, Untranslatable
from nemo_amalia.utils.errors import UserError

QUESTION = "What is the animal in [0.1, 0.2, 0.3, 0.4]?\nA. a red fox\nB. a grey wolf"
PT = {
    "What is the animal in ⟦1⟧?\nA. a red fox\nB. a grey wolf": "Que animal está em ⟦1⟧?\n"
    "A. uma raposa vermelha\nB. um lobo cinzento",
    "How many of them are there?": "Quantos são?",
    "There are 3 foxes near the Eiffel Tower.": "Há 3 raposas junto à Torre Eiffel.",
    "Which bus is it?": "Que autocarro é este?",
}
SAMPLE = {
    "key": "fox-1",
    "messages": [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "How many of them are there?\nAnswer with a number."},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "A red fox."},
        {"role": "assistant", "content": "There are 3 foxes near the Eiffel Tower."},
        {"role": "assistant", "content": "Yes."},
    ],
    "images": [b"bytes"],
    "source": "foxes",
    "language": "en",
}


def evidence(text):
    found = [(0, 6, "vocabulary", "em Portugal diz-se autocarro")] if "ônibus" in text else []
    return SimpleNamespace(variety="pt-BR" if found else "pt-PT", score=1.0, evidence=found)


def is_editor(body):
    return "Segmentos pedidos" in texts(body)[0]


def asked(body):
    """{id: masked English} of what the editor must translate now."""
    if "não passaram na verificação" in texts(body)[-1] and len(body["messages"]) > 1:
        return {
            item["id"]: item["original"] for item in json.loads(re.search(r"\[.*\]", texts(body)[-1], re.S).group())
        }
    words = texts(body)[0]
    wanted = json.loads(re.search(r"Segmentos pedidos: (\[.*?\])", words, re.S).group(1))
    shown = json.loads(re.search(r"já está feito\):\n(\[.*?\n\])", words, re.S).group(1))
    return {item["id"]: item["texto"] for item in shown if item["id"] in wanted}


def edited(body, translate=PT.get, glossary=()):
    segments = {str(number): translate(text) for number, text in asked(body).items()}
    terms = [{"original": a, "traducao": b} for a, b in glossary]
    return json.dumps({"glossario": terms, "segmentos": segments}, ensure_ascii=False)


def plain(body):
    """The text that the translation model must translate."""
    return texts(body)[0].split("into Portuguese:\n\n\n")[1]


def good(body, number):
    return edited(body) if is_editor(body) else PT[plain(body)]


def translate(double, sample=SAMPLE, **options):
    """(Translation or Untranslatable, counters)."""
    server = {"url": double.url, "backoff": 0.01, "retries": 1}
    roles = {role: {"server": "s", "model": role, "version": "1"} for role in ("translator", "editor")}

    async def run():
        async with Models(routes_from({"servers": {"s": server}, "roles": roles})) as models:
            return await Translator(models, Options(**options), evidence).translate(sample), models.counters

    try:
        return asyncio.run(run())
    except Untranslatable as error:
        return error, None


EXPECTED = [
    "Que animal está em [0.1, 0.2, 0.3, 0.4]?\nA. uma raposa vermelha\nB. um lobo cinzento",
    "A",
    "Quantos são?\nResponda com um número.",
    "3",
    "Que animal está em [0.1, 0.2, 0.3, 0.4]?\nA. uma raposa vermelha\nB. um lobo cinzento",
    "Uma raposa vermelha.",
    "Há 3 raposas junto à Torre Eiffel.",
    "Sim.",
]


def said(sample):
    return [c if isinstance(c := m["content"], str) else c[-1]["text"] for m in sample["messages"]]


@pytest.mark.parametrize("translator", ["translator", ""])
def test_a_conversation_is_translated_and_nothing_else_of_it_changes(translator):
    with ModelDouble(good) as double:
        done, counters = translate(double, translator=translator)
    assert said(done.sample) == EXPECTED
    assert done.sample["messages"][0]["content"][0] == {"type": "image"}
    assert [m["role"] for m in done.sample["messages"]] == [m["role"] for m in SAMPLE["messages"]]
    assert done.sample["key"] == "fox-1-pt" and done.sample["language"] == "pt-PT"
    assert done.sample["images"] is SAMPLE["images"] and done.sample["source"] == "foxes"
    assert said(SAMPLE)[0] == QUESTION  # the source is left alone
    # Equal texts are one call; letters, numbers, yes and options none.
    assert sum(counts.calls for counts in counters.values()) == (3 if translator else 1)
    line = report.record("fox-1", done.work)
    assert line["settled"] == {"translated": 3, "option_letter": 1, "no_words": 1, "option": 1, "yes_no": 1}
    assert line["reason"] == "" and line["refused"] == {}


def test_what_the_translator_loses_the_editor_mends_with_the_reasons():
    question = next(iter(PT))
    lossy = {
        question: PT[question].replace(" em ⟦1⟧", ""),
        "There are 3 foxes near the Eiffel Tower.": "Há 4 raposas.",
    }
    with ModelDouble(lambda b, n: edited(b) if is_editor(b) else lossy.get(plain(b), PT[plain(b)])) as double:
        done, counters = translate(double)
    assert said(done.sample) == EXPECTED
    edits = [body for body in double.requests if is_editor(body)]
    assert len(edits) == 1 and set(asked(edits[0]).values()) == set(lossy)
    words = texts(edits[0])[0]
    assert "em falta: ⟦1⟧" in words and "em falta 3; a mais 4" in words and "Eiffel" in words
    assert "Quantos são?" in words  # the context, translated already
    refused = report.record("fox-1", done.work)["refused"]
    assert refused == {"translator: marks": 1, "translator: number": 1, "translator: name": 1, "translator: length": 1}


def test_brazilian_answers_are_asked_again_and_then_dropped():
    sample = {"key": "bus", "messages": [{"role": "user", "content": "Which bus is it?"}]}
    answers = iter(["Que ônibus é este?", "Que ônibus é este?", "Que autocarro é este?"])

    def script(body, number):
        return edited(body, lambda text: next(answers)) if is_editor(body) else next(answers)

    with ModelDouble(script) as double:
        done, _ = translate(double, sample)
    assert said(done.sample) == ["Que autocarro é este?"]
    assert "«Que ôn» (em Portugal diz-se autocarro)" in texts(double.requests[-1])[-1]
    assert [m["role"] for m in double.requests[-1]["messages"]] == ["user", "assistant", "user"]
    stubborn = lambda b, n: edited(b, lambda text: "Que ônibus é este?") if is_editor(b) else "Que ônibus é este?"  # noqa: E731
    with ModelDouble(stubborn) as double:
        error, _ = translate(double, sample, tries=2)
    assert isinstance(error, Untranslatable) and error.reason == "variety" and len(double.requests) == 3
    line = report.record("bus", error.work, error.reason, str(error))
    assert line["refused"] == {"translator: variety": 1, "editor: variety": 2}
    assert line["shown"] == ["Which bus is it?", "Que ônibus é este?"]


def test_an_editor_that_breaks_the_form_is_asked_again():
    broken = ["não é JSON", '{"glossario": [], "segmentos": {"0": "Que autocarro é este?", "7": "mais"}}']
    sample = {"key": "bus", "messages": [{"role": "user", "content": "Which bus is it?"}]}
    with ModelDouble(lambda b, n: broken[n - 1] if n <= 2 else edited(b)) as double:
        done, counters = translate(double, sample, translator="")
    assert said(done.sample) == ["Que autocarro é este?"] and counters["editor"].reasked == 2
    with ModelDouble("nunca é JSON") as double, pytest.raises(ModelError) as caught:
        translate(double, sample, translator="")
    assert caught.value.reason == "schema"


def test_a_cut_translation_goes_to_the_editor_and_a_dead_server_does_not():
    sample = {"key": "bus", "messages": [{"role": "user", "content": "Which bus is it?"}]}
    cut = lambda b, n: edited(b) if is_editor(b) else Reply("Que auto", finish="length")  # noqa: E731
    with ModelDouble(cut) as double:
        done, _ = translate(double, sample)
        assert said(done.sample) == ["Que autocarro é este?"]
        error, _ = translate(double, sample, editor="")
        assert error.reason == "model_truncated"
    with ModelDouble(lambda b, n: Reply(status=503)) as double, pytest.raises(ModelError) as caught:
        translate(double, sample)
    assert caught.value.reason == "gave_up" and not any(is_editor(body) for body in double.requests)


def test_a_glossary_holds_the_conversation_together():
    sample = {
        "key": "shelf",
        "messages": [
            {"role": "user", "content": "Where is the shelf?"},
            {"role": "assistant", "content": "The shelf is in the kitchen."},
            {"role": "user", "content": "Is the shelf old?"},
        ],
    }
    first = ["Onde está a prateleira?", "A prateleira está na cozinha.", "A estante é antiga?"]

    def script(body, number):
        answers = iter(first if number == 1 else ["A prateleira é antiga?"])
        glossary = [("shelf", "prateleira"), ("the", "a"), ("unicorn", "unicórnio"), ("kitchen", "garagem")]
        return edited(body, lambda text: next(answers), glossary)

    with ModelDouble(script) as double:
        done, _ = translate(double, sample, translator="")
    assert said(done.sample) == ["Onde está a prateleira?", "A prateleira está na cozinha.", "A prateleira é antiga?"]
    assert len(double.requests) == 2 and "«shelf» traduz-se por «prateleira»" in texts(double.requests[1])[-1]
    # A term that is not in the conversation, and one that its own translation does not use, are not taken.
    assert ("shelf", "prateleira") in done.work.glossary
    assert not {"unicorn", "kitchen"} & {term for term, _ in done.work.glossary}


def test_answers_and_quotations_of_an_ocr_set_stay():
    sample = {
        "key": "sign",
        "messages": [
            {"role": "user", "content": 'Where does "Boat for sale" stand?'},
            {"role": "assistant", "content": "Boat for sale, 500 euros"},
        ],
    }
    with ModelDouble("Onde está escrito ⟦1⟧?") as double:
        done, _ = translate(double, sample, assistant="keep", quotes=True)
    assert said(done.sample) == ['Onde está escrito "Boat for sale"?', "Boat for sale, 500 euros"]
    assert report.record("sign", done.work)["settled"] == {"translated": 1, "answer_kept": 1}


def test_preference_pairs_are_translated_whole():
    sample = {
        "key": "pair",
        "messages": [{"role": "user", "content": "Which bus is it?"}],
        "chosen": [{"role": "assistant", "content": "There are 3 foxes near the Eiffel Tower."}],
        "rejected": [{"role": "assistant", "content": "No"}],
    }
    with ModelDouble(good) as double:
        done, _ = translate(double, sample)
    assert done.sample["chosen"][0]["content"] == "Há 3 raposas junto à Torre Eiffel."
    assert done.sample["rejected"][0]["content"] == "Não"


def test_language_codes_go_as_a_content_part_where_the_server_takes_them():
    sample = {"key": "bus", "messages": [{"role": "user", "content": "Which bus is it?"}]}
    with ModelDouble("Que autocarro é este?") as double:
        translate(double, sample, lang_codes=True)
    part = {"type": "text", "source_lang_code": "en", "target_lang_code": "pt-PT", "text": "Which bus is it?"}
    assert double.requests[0]["messages"] == [{"role": "user", "content": [part]}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"translator": "", "editor": ""}, "name at least one role"),
        ({"tries": 0}, "at least one try"),
        ({"assistant": "drop"}, "assistant='drop'; expected one of"),
    ],
)
def test_wrong_options_are_refused(change, message):
    with ModelDouble(good) as double, pytest.raises(UserError, match=message):
        translate(double, **change)


def test_a_sample_that_is_no_conversation_is_refused():
    with ModelDouble(good) as double, pytest.raises(UserError, match=r"sample x: messages\[0\] is"):
        translate(double, {"key": "x", "messages": [{"role": "user", "content": 7}]})
