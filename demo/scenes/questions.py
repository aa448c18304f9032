"""Questions about a scene in European Portuguese, each asked only where its answer is unique."""

import random
from collections import Counter
from dataclasses import dataclass

from demo.scenes.scenes import COLOURS, SHAPES, Scene, Thing, colour_form, place, row_place
from demo.scenes.words import ORDINALS

_NUMBERS_M = ("Nenhum", "Um", "Dois", "Três", "Quatro")
_NUMBERS_F = ("Nenhuma", "Uma", "Duas", "Três", "Quatro")
KINDS = ("cor", "forma", "contagem", "posicao", "palavra", "sim_nao")


@dataclass(frozen=True)
class Question:
    """A question, its answer, its kind, and its topic (two wordings of one question share a topic)."""

    kind: str
    topic: str
    text: str
    answer: str


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[0].upper() + text[1:]


def number(count: int, gender: str) -> str:
    """The answer to "quantos" (m) or "quantas" (f), 0 to 4."""
    return (_NUMBERS_F if gender == "f" else _NUMBERS_M)[count]


def article(shape: str) -> str:
    """ "o" or "a"."""
    return "a" if SHAPES[shape][0] == "f" else "o"


def full_name(thing: Thing) -> str:
    """ "círculo vermelho", "estrela amarela"..."""
    return f"{thing.shape} {colour_form(thing.colour, SHAPES[thing.shape][0])}"


def describe(scene: Scene) -> str:
    """The scene in one sentence, in reading order: the caption of stage 1 and of the contrastive tower."""
    parts = [
        (t.cell, f"{'uma' if article(t.shape) == 'a' else 'um'} {full_name(t)} {place(scene.form, t.cell)}")
        for t in scene.things
    ]
    if scene.word is not None:
        parts.append(((scene.word_row, 0), f"a palavra {scene.word} {row_place(scene.word_row)}"))
    texts = [text for _, text in sorted(parts)]
    joined = texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " e " + texts[-1]
    return capital(joined) + "."


def _colours(scene: Scene, rng: random.Random) -> list[Question]:
    shapes = Counter(t.shape for t in scene.things)
    asked = []
    for thing in scene.things:
        gender = SHAPES[thing.shape][0]
        where = place(scene.form, thing.cell)
        if shapes[thing.shape] == 1:
            art = article(thing.shape)
            text = rng.choice(
                (
                    f"De que cor é {art} {thing.shape}?",
                    f"Qual é a cor d{art} {thing.shape}?",
                    f"Diz-me a cor d{art} {thing.shape}.",
                )
            )
            answer = capital(colour_form(thing.colour, gender))
            asked.append(Question("cor", f"cor {thing.shape}", text, answer))
        text = rng.choice((f"De que cor é a forma que está {where}?", f"Que cor tem a forma {where}?"))
        asked.append(Question("cor", f"cor {where}", text, capital(colour_form(thing.colour, "f"))))
    return asked


def _shapes(scene: Scene, rng: random.Random) -> list[Question]:
    colours = Counter(t.colour for t in scene.things)
    asked = []
    for thing in scene.things:
        where = place(scene.form, thing.cell)
        text = rng.choice((f"Que forma está {where}?", f"Que forma se vê {where}?"))
        asked.append(Question("forma", f"forma {where}", text, capital(thing.shape)))
        if colours[thing.colour] == 1:
            adjective = colour_form(thing.colour, "f")
            text = rng.choice((f"Que forma é {adjective}?", f"Qual é a forma {adjective}?"))
            asked.append(Question("forma", f"forma {thing.colour}", text, capital(thing.shape)))
    return asked


def _counts(scene: Scene, rng: random.Random) -> list[Question]:
    total = len(scene.things)
    text = rng.choice(("Quantas formas há na imagem?", "Quantas formas vês?", "Quantas formas há?"))
    asked = [Question("contagem", "formas", text, number(total, "f"))]
    for shape in SHAPES:
        gender, plural = SHAPES[shape]
        count = sum(t.shape == shape for t in scene.things)
        how = "Quantas" if gender == "f" else "Quantos"
        text = rng.choice((f"{how} {plural} há?", f"{how} {plural} vês na imagem?"))
        asked += [Question("contagem", f"contar {shape}", text, number(count, gender))] * (1 if count else 0)
    absent = [shape for shape in SHAPES if all(t.shape != shape for t in scene.things)]
    if absent and rng.random() < 0.25:
        gender, plural = SHAPES[shape := rng.choice(absent)]
        how = "Quantas" if gender == "f" else "Quantos"
        asked.append(Question("contagem", f"contar {shape}", f"{how} {plural} há?", number(0, gender)))
    colour = rng.choice([t.colour for t in scene.things])
    count = sum(t.colour == colour for t in scene.things)
    text = f"Quantas formas {colour_form(colour, 'f', plural=True)} há?"
    asked.append(Question("contagem", f"contar {colour}", text, number(count, "f")))
    return asked


def _places(scene: Scene, rng: random.Random) -> list[Question]:
    shapes = Counter(t.shape for t in scene.things)
    full = Counter((t.shape, t.colour) for t in scene.things)
    asked = []
    for thing in scene.things:
        if full[thing.shape, thing.colour] > 1:
            continue
        name = thing.shape if shapes[thing.shape] == 1 and rng.random() < 0.5 else full_name(thing)
        ask = rng.choice(("Onde está", "Em que sítio está"))
        answer = capital(place(scene.form, thing.cell))
        text = f"{ask} {article(thing.shape)} {name}?"
        asked.append(Question("posicao", f"onde {thing.shape} {thing.colour}", text, answer))
    if scene.word is not None:
        asked.append(Question("posicao", "onde palavra", "Onde está a palavra?", capital(row_place(scene.word_row))))
    return asked


def _words(scene: Scene, rng: random.Random) -> list[Question]:
    if scene.word is None:
        return []
    text = rng.choice(("Que palavra está escrita na imagem?", "Que palavra se lê?", "Que palavra está escrita?"))
    return [Question("palavra", "palavra", text, scene.word)]


def letters(text: str, of: str, count: int, rng: random.Random) -> list[Question]:
    """`count` questions for single letters of a text that is written `of` somewhere: reading, spelt out."""
    places = rng.sample(range(len(text)), count)
    return [Question("letra", f"letra {i} {of}", f"Qual é a {ORDINALS[i]} letra {of}?", text[i]) for i in places]


def _yes_no(scene: Scene, rng: random.Random) -> list[Question]:
    def answer(truth: bool) -> str:
        return "Sim" if truth else "Não"

    shapes = Counter(t.shape for t in scene.things)
    present, colours = set(shapes), {t.colour for t in scene.things}
    asked = []
    shape = rng.choice(sorted(present) if rng.random() < 0.5 else list(SHAPES))
    some = f"algum{'a' if SHAPES[shape][0] == 'f' else ''} {shape}"
    text = rng.choice((f"Há {some} na imagem?", f"Vês {some}?"))
    asked.append(Question("sim_nao", f"há {shape}", text, answer(shape in present)))
    colour = rng.choice(sorted(colours) if rng.random() < 0.4 else list(COLOURS))
    text = f"Há alguma forma {colour_form(colour, 'f')}?"
    asked.append(Question("sim_nao", f"há {colour}", text, answer(colour in colours)))
    single = [t for t in scene.things if shapes[t.shape] == 1]
    if single:
        thing = rng.choice(single)
        colour = thing.colour if rng.random() < 0.5 else rng.choice(list(COLOURS))
        adjective = colour_form(colour, SHAPES[thing.shape][0])
        text = f"{article(thing.shape).upper()} {thing.shape} é {adjective}?"
        asked.append(Question("sim_nao", f"cor? {thing.shape}", text, answer(colour == thing.colour)))
    text = "Há alguma palavra escrita?"
    asked.append(Question("sim_nao", "há palavra", text, answer(scene.word is not None)))
    return asked


_ASKERS = {
    "cor": _colours,
    "forma": _shapes,
    "contagem": _counts,
    "posicao": _places,
    "palavra": _words,
    "sim_nao": _yes_no,
}


def ask(scene: Scene, kind: str, rng: random.Random) -> list[Question]:
    """Every question of one kind that has a single answer in this scene, in a random wording each."""
    return _ASKERS[kind](scene, rng)


def conversation(scene: Scene, rng: random.Random, turns: int) -> list[Question]:
    """At most `turns` questions of mixed kinds, no topic twice, always with the word if there is one."""
    pools = {kind: ask(scene, kind, rng) for kind in KINDS}
    for pool in pools.values():
        rng.shuffle(pool)
    chosen = pools.pop("palavra")[:1]
    kinds = [kind for kind in pools if pools[kind]]
    while kinds and len(chosen) < turns:
        kind = rng.choice(kinds)
        chosen.append(pools[kind].pop())
        if not pools[kind]:
            kinds.remove(kind)
    rng.shuffle(chosen)
    return chosen
