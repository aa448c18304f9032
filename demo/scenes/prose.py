"""Portuguese text for the tokenizer and the tiny decoder: descriptions with what follows, and facts.

No question of demo/scenes/questions.py is in it. What it teaches is to look back: each description is followed by
statements that restate its colours, shapes, places, counts and words.
"""

import functools
import random
from collections import Counter

from babel import Locale

from demo.scenes import words
from demo.scenes.questions import article, capital, describe, full_name, number
from demo.scenes.scenes import COLOURS, FORMS, SHAPES, Scene, colour_form, place, random_scene, row_place
from demo.scenes.split import side_of

_SENTENCES = (
    "O comboio parte de Lisboa às nove horas e chega ao Porto antes do meio-dia.",
    "Ao pequeno-almoço bebemos um sumo de laranja e comemos pão com manteiga.",
    "A rapariga atravessou a rua na passadeira e apanhou o autocarro para a escola.",
    "O telemóvel ficou em cima da mesa, ao lado do computador e do caderno azul.",
    "Na praia havia muita gente, e o mar estava calmo e de um verde muito claro.",
    "O avô conta-nos sempre a mesma história, e nós fingimos que é a primeira vez.",
    "Está a chover desde ontem, mas amanhã o sol volta e vamos passear à beira do rio.",
    "Quem chega tarde fica sem lugar; quem chega cedo escolhe onde se quer sentar.",
    "A casa tem duas janelas à direita, uma porta ao centro e um jardim em baixo.",
    "Os alunos estão a ler um livro sobre o espaço, as estrelas e os planetas.",
    "No frigorífico há ovos, queijo, fiambre e uma garrafa de água.",
    "Gosto de desenhar formas simples: círculos, quadrados, triângulos, estrelas e cruzes.",
    "Diz-me com quem andas e dir-te-ei quem és.",
    "Cada imagem conta uma história diferente a quem a vê com atenção.",
    "A palavra que está escrita no cartaz lê-se bem de longe.",
    "Na fotografia vê-se uma chávena de café, um gelado e um pacote de bolachas.",
    "Qual é o caminho mais curto para o rio? Não sei, mas há uma ponte aqui perto.",
    "Onde fica a estação? Fica a meio da avenida, entre o mercado e o teatro.",
    "Quantas horas faltam? Faltam três, e ainda há tempo para tudo.",
    "De que lado nasce o sol? Nasce do lado de lá da serra.",
    "Que dia é hoje? Hoje é quinta-feira. Em que mês estamos? Em julho.",
)


#: Everyday words that the tokenizer should know whole, whatever the rest of the corpus says of them.
_VOCABULARY = (
    "que qual quais quantos quantas onde como quem cor cores forma formas imagem fotografia diz diz-me "
    "descreve vê vês vê-se se lê escrita escrito escritas palavra texto sítio está estão há algum alguma "
    "alguns algumas na no mostra é são preto branco a de do da o um uma cima baixo direita esquerda "
    "nenhum nenhuma dois duas três quatro sim não"
)


@functools.cache
def facts() -> tuple[str, ...]:
    """Sentences made of Babel's pt_PT data; strings of the evaluation side are left out."""
    locale = Locale("pt", "PT")
    found = []
    for code, name in locale.territories.items():
        if len(code) == 2 and side_of(name) == "train":
            found.append(f"{name} tem o código {code} nas listas de países e territórios.")
    for name in locale.languages.values():
        if side_of(name) == "train":
            found.append(f"Entre as línguas do mundo está esta: {name}.")
    for name in locale.currencies.values():
        found.append(f"Uma das moedas chama-se {name}.")
    months = [locale.months["format"]["wide"][i] for i in range(1, 13)]
    days = [locale.days["format"]["wide"][i] for i in range(7)]
    for before, after in (*zip(months, months[1:], strict=False), *zip(days, days[1:], strict=False)):
        if side_of(before) == side_of(after) == "train":
            found.append(f"Depois de {before} vem {after}.")
    return tuple(found)


def raster(scene: Scene) -> str:
    """The scene read cell by cell, row by row, as the image's tokens will come."""
    _, _, rows, columns = FORMS[scene.form]
    at = {thing.cell: full_name(thing) for thing in scene.things}
    lines = []
    for row in range(rows):
        if scene.word_row == row:
            lines.append("texto " + "-".join(scene.word))
        else:
            lines.append(", ".join(at.get((row, column), "nada") for column in range(columns)))
    return "; ".join(lines) + "."


def listing(scene: Scene, rng: random.Random) -> str:
    """The scene as a shuffled list of what is there."""
    parts = []
    for thing in scene.things:
        name, where = full_name(thing), place(scene.form, thing.cell)
        parts.append(rng.choice((f"{name} {where}", f"{where}, {name}")))
    if scene.word is not None:
        where = row_place(scene.word_row)
        parts.append(rng.choice((f"a palavra {scene.word} {where}", f"{where}, o texto {scene.word}")))
    rng.shuffle(parts)
    return capital("; ".join(parts)) + "."


def statements(scene: Scene, rng: random.Random) -> list[str]:
    """What follows from a scene, as statements and as entries of a record ("Cor do círculo: Vermelho")."""
    shapes = Counter(t.shape for t in scene.things)
    colours = Counter(t.colour for t in scene.things)
    found = []
    for thing in scene.things:
        gender, art = SHAPES[thing.shape][0], article(thing.shape)
        where = place(scene.form, thing.cell)
        adjective, feminine = colour_form(thing.colour, gender), colour_form(thing.colour, "f")
        found.append(f"Forma {where}:\n{capital(thing.shape)}")
        found.append(f"Cor da forma {where}:\n{capital(feminine)}")
        if shapes[thing.shape] == 1:
            found.append(
                rng.choice(
                    (
                        f"Cor d{art} {thing.shape}:\n{capital(adjective)}",
                        f"{art.upper()} {thing.shape} é {adjective}.",
                    )
                )
            )
            found.append(f"Sítio d{art} {thing.shape}:\n{capital(where)}")
        if colours[thing.colour] == 1:
            found.append(f"Forma {feminine}:\n{capital(thing.shape)}")
        found.append(f"{art.upper()} {full_name(thing)} está {where}.")
    for shape, (gender, plural) in SHAPES.items():
        if shapes[shape] or rng.random() < 0.15:
            found.append(f"Número de {plural}:\n{number(shapes[shape], gender)}")
        if rng.random() < 0.3:
            known = "Sim" if shapes[shape] else "Não"
            found.append(f"Presença de {plural}:\n{known}")
    found.append(f"Número de formas:\n{number(len(scene.things), 'f')}")
    found.append(f"Presença de texto:\n{'Sim' if scene.word else 'Não'}")
    if scene.word is not None:
        found.append(f"Palavra escrita:\n{scene.word}")
        found.append(f"Sítio da palavra:\n{capital(row_place(scene.word_row))}")
    rng.shuffle(found)
    return found


def scene_text(rng: random.Random, limit: int = 9) -> list[str]:
    """One training-side scene told in one way, and statements about it: the paragraphs of one document."""
    scene = random_scene(rng, "train")
    told = rng.choice((describe, raster, raster, lambda s: listing(s, rng)))(scene)
    after = statements(scene, rng)[:limit]
    if told != (plain := describe(scene)) and rng.random() < 0.3:
        after.append(plain)
    return [told, *after]


def word_text(rng: random.Random) -> list[str]:
    """One or two strings told in lines, or one spelt in any order, and statements that write them again."""
    lines = [words.any_string(rng, "train") for _ in range(rng.choice((1, 1, 2)))]
    if len(lines) == 1:
        spelt = [f"{nth} letra {letter}" for nth, letter in zip(words.ORDINALS, lines[0], strict=False)]
        rng.shuffle(spelt)
        by_letters = ", ".join(spelt) + "."
        told = rng.choice((f"Texto: {lines[0]}.", "texto " + "-".join(lines[0]) + "."))
        if rng.random() < 0.5:
            told = by_letters
        name = rng.choice(("Texto escrito", "Palavra escrita"))
        after = [f"{name}:\n{lines[0]}", f"Está escrito {lines[0]}.", f"Texto:\n{lines[0]}"]
        rng.shuffle(after)
        return [told, *after[:2]]
    places = [row_place(row) for row in range(len(lines))]
    told = "; ".join(f"{where}, {line}" for where, line in zip(places, lines, strict=True))
    told = rng.choice(("Texto: " + ", ".join(lines), capital(told))) + "."
    after = [f"Texto {where}:\n{line}" for where, line in zip(places, lines, strict=True)]
    rng.shuffle(after)
    return [told, *after]


def prose(rng: random.Random) -> str:
    """A few plain sentences: ordinary pt-PT prose and facts of the locale data."""
    return " ".join(rng.choice(facts()) if rng.random() < 0.7 else rng.choice(_SENTENCES) for _ in range(4))


def tokenizer_corpus(seed: int, documents: int = 6000) -> list[str]:
    """The text on which the tokenizer is trained."""
    rng = random.Random(f"vocabulario-{seed}")
    made = ["\n".join(scene_text(rng)) if rng.random() < 0.6 else prose(rng) for _ in range(documents)]
    known = _VOCABULARY.split() + [form for colour in COLOURS for form in (colour, *COLOURS[colour][:3])]
    known += [name for shape in SHAPES for name in (shape, SHAPES[shape][1])]
    return made + [" ".join(rng.sample(known, len(known))) for _ in range(400)] + [capital(w) for w in known] * 300
