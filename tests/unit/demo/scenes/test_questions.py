"""Answers are re-derived here from the layout by an oracle that knows only the question's text."""

import random
import re

import pytest

from demo.scenes import prose, questions, samples, scenes
from demo.scenes.questions import capital
from demo.scenes.scenes import COLOURS, SHAPES, colour_form, place

_NUMBERS = {"Nenhum": 0, "Nenhuma": 0, "Um": 1, "Uma": 1, "Dois": 2, "Duas": 2, "Três": 3, "Quatro": 4}


def _named(text: str, names: dict[str, tuple[str, ...]]) -> str | None:
    found = [name for name, forms in names.items() if any(re.search(rf"\b{form}\b", text) for form in forms)]
    assert len(found) <= 1, (text, found)
    return found[0] if found else None


def _oracle(scene: scenes.Scene, text: str) -> set[str]:
    """Every answer that the layout allows to the question."""
    low = text.lower()
    if "palavra" in low:
        if low.startswith(("há", "vês")):
            return {"Sim" if scene.word else "Não"}
        return {capital(scenes.row_place(scene.word_row)) if low.startswith("onde") else scene.word}
    shape = _named(low, {name: (name, plural) for name, (_, plural) in SHAPES.items()})
    colour = _named(low, {name: (name, *forms[:3]) for name, forms in COLOURS.items()})
    places = sorted({place(scene.form, t.cell) for t in scene.things}, key=len)
    where = next((p for p in reversed(places) if low.rstrip("?.").endswith(" " + p)), None)
    things = [t for t in scene.things if shape in (None, t.shape) and where in (None, place(scene.form, t.cell))]
    yes_no = re.match(r"(o|a) \S+ é ", low)
    if not yes_no:
        things = [t for t in things if colour in (None, t.colour)]
    if low.startswith("quant"):
        return {word for word, count in _NUMBERS.items() if count == len(things)}
    if yes_no:
        return {"Sim" if t.colour == colour else "Não" for t in things}
    if low.startswith(("há", "vês")):
        return {"Sim" if things else "Não"}
    if re.search(r"\bcor\b", low):
        return {capital(colour_form(t.colour, "f" if "forma" in low else SHAPES[t.shape][0])) for t in things}
    if low.startswith(("onde", "em que sítio")):
        return {capital(place(scene.form, t.cell)) for t in things}
    return {capital(t.shape) for t in things}


@pytest.mark.parametrize("seed", range(5))
def test_every_answer_is_the_only_one_and_right(seed):
    rng = random.Random(seed)
    kinds = set()
    for _ in range(300):
        scene = scenes.random_scene(rng, "train")
        for kind in questions.KINDS:
            for question in questions.ask(scene, kind, rng):
                allowed = _oracle(scene, question.text)
                kinds.add(question.kind)
                if question.kind == "contagem":
                    assert question.answer in allowed, (scene, question)
                    feminine = question.text.startswith("Quantas")
                    assert question.answer == questions.number(_NUMBERS[question.answer], "f" if feminine else "m")
                else:
                    assert allowed == {question.answer}, (scene, question)
    assert kinds == set(questions.KINDS)


def test_the_oracle_sees_a_wrong_answer():
    scene = scenes.Scene("quadrada", (scenes.Thing((0, 0), "cruz", "azul"), scenes.Thing((1, 1), "cruz", "preto")))
    assert _oracle(scene, "De que cor é a cruz?") == {"Azul", "Preta"}  # ambiguous, so it must never be asked
    assert all("a cruz?" not in q.text for q in questions.ask(scene, "cor", random.Random(0)))


def test_a_conversation_repeats_no_topic_and_asks_for_the_word():
    rng = random.Random(1)
    for _ in range(200):
        scene = scenes.random_scene(rng, "train")
        asked = questions.conversation(scene, rng, 7)
        assert len({q.topic for q in asked}) == len(asked) <= 7
        assert (scene.word is not None) == any(q.kind == "palavra" for q in asked)


def test_agreement_of_gender_and_number():
    assert colour_form("vermelho", "f") == "vermelha" and colour_form("azul", "m", plural=True) == "azuis"
    assert colour_form("laranja", "m") == colour_form("laranja", "f", plural=True) == "laranja"
    scene = scenes.Scene("quadrada", (scenes.Thing((0, 0), "estrela", "amarelo"),), "LIMA", 1)
    assert questions.describe(scene) == "Uma estrela amarela em cima à esquerda e a palavra LIMA em baixo."


#: Brazilian forms, and what pt-PT says instead.
_BRAZILIAN = (
    r"embaixo|você|vocês|trem|ônibus|celular|xícara|café da manhã|geladeira|moto|marrom|suco|garota|sorvete|"
    r"est(?:á|ão|ou) \w+ndo|quadrinhos|planejar|fato de que|pra|cadê|tá"
)


def test_the_wording_is_european_portuguese():
    rng = random.Random(3)
    texts = [prose.prose(rng) for _ in range(100)] + ["\n".join(prose.scene_text(rng)) for _ in range(100)]
    for made in (samples.alignment_samples(80, 5), samples.sft_samples(80, 5), samples.eval_samples(80, 5)):
        european = [s for s in made if s["language"] == "pt-PT"]  # some drawings are described in pt-BR, and say so
        texts += [part["text"] for s in european for m in s["messages"] for part in m["content"] if "text" in part]
    assert any("em baixo" in text for text in texts)
    for text in texts:
        assert not re.search(rf"\b(?:{_BRAZILIAN})\b", text), text
    assert re.search(rf"\b(?:{_BRAZILIAN})\b", "a cruz está embaixo")
