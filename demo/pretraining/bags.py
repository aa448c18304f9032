"""Text in the form in which a picture comes: a bag of words for every patch, for the last part of the decoder's text.

A connector gives the decoder one vector a patch, which says several things at once (a shape, its colour, its place).
Text never looks like that. So some documents tell their scene as bags: the placeholder stands where a patch will
stand, its vector is the sum of the words' embeddings, and what follows is the usual text. No picture is involved.
"""

import random
from collections import Counter

from demo.pretraining import tiny
from demo.scenes import prose, questions, words
from demo.scenes.questions import article, capital, full_name, number
from demo.scenes.scenes import COLOURS, FORMS, SHAPES, Scene, colour_form, place, random_scene, row_place

_SIDE = tiny.TILE // tiny.PATCH  # patches a tile side
_NOTHING, _NEWLINE = "fundo", "\n"
_MISSED = 0.2  # of the patches of a shape: those that its outline leaves empty


def scene_bags(scene: Scene, rng: random.Random, grid: bool) -> list[str]:
    """A thumbnail's bags, with places; then, with `grid`, those of the tiles row by row, without."""
    _, _, rows, columns = FORMS[scene.form]
    at = {thing.cell: (full_name(thing), place(scene.form, thing.cell)) for thing in scene.things}
    lines = {} if scene.word is None else {scene.word_row: scene.word}
    wheres = {row: f"texto {row_place(row)}" for row in lines}
    return _view(at, lines, wheres, rows, columns, rng, grid)


def panel_bags(lines: list[str], rng: random.Random, grid: bool) -> list[str]:
    """The same for one or two written lines."""
    wheres = {row: "texto" if len(lines) == 1 else f"texto {row_place(row)}" for row in range(len(lines))}
    return _view({}, dict(enumerate(lines)), wheres, len(lines), 2, rng, grid)


def _view(at: dict, lines: dict, wheres: dict, rows: int, columns: int, rng: random.Random, grid: bool) -> list[str]:
    def bag(row: float, column: float, thumbnail: bool) -> str:
        if int(row) in lines:
            index = int(column / columns * words.LETTERS)
            letter = f"letra {lines[int(row)][index]}"
            said = f"{words.ORDINALS[index]} {letter} {wheres[int(row)]}" if thumbnail else letter
        elif (int(row), int(column)) in at:
            name, where = at[int(row), int(column)]
            said = f"{name} {where}" if thumbnail else name
        else:
            return _NOTHING
        return _NOTHING if rng.random() < _MISSED else said

    steps = range(_SIDE)
    bags = [bag(rows * (r + 0.5) / _SIDE, columns * (c + 0.5) / _SIDE, True) for r in steps for c in steps]
    if grid:
        for row in range(rows * _SIDE):
            bags += [bag((row + 0.5) / _SIDE, (c + 0.5) / _SIDE, False) for c in range(columns * _SIDE)]
            bags.append(_NEWLINE)
    return bags


def checks(scene: Scene, rng: random.Random) -> list[str]:
    """Entries that say yes or no, and counts by colour, beside those of prose.statements."""
    present = [t.colour for t in scene.things]
    found = []
    for colour in rng.sample(list(COLOURS), 2) + rng.sample(present, 1):
        plural = colour_form(colour, "f", plural=True)
        found.append(f"Presença de formas {plural}:\n{'Sim' if colour in present else 'Não'}")
        found.append(f"Número de formas {plural}:\n{number(present.count(colour), 'f')}")
    for thing in scene.things:
        if sum(t.shape == thing.shape for t in scene.things) == 1:
            colour = rng.choice((thing.colour, rng.choice(list(COLOURS))))
            name = f"{article(thing.shape)} {thing.shape} ser {colour_form(colour, SHAPES[thing.shape][0])}"
            found.append(f"Verdade de {name}:\n{'Sim' if colour == thing.colour else 'Não'}")
    rng.shuffle(found)
    return found


def bindings(scene: Scene, rng: random.Random) -> list[str]:
    """Entries that only who ties shape, colour and place of one thing together can know."""
    shapes, colours = Counter(t.shape for t in scene.things), Counter(t.colour for t in scene.things)
    full = Counter((t.shape, t.colour) for t in scene.things)
    found = []
    for thing in scene.things:
        gender, where = SHAPES[thing.shape][0], place(scene.form, thing.cell)
        art, feminine = article(thing.shape), colour_form(thing.colour, "f")
        found.append(f"Forma {where}:\n{capital(thing.shape)}")
        found.append(f"Cor da forma {where}:\n{capital(feminine)}")
        if full[thing.shape, thing.colour] == 1:
            found.append(f"Sítio d{art} {full_name(thing)}:\n{capital(where)}")
        if shapes[thing.shape] == 1:
            found.append(f"Sítio d{art} {thing.shape}:\n{capital(where)}")
            found.append(f"Cor d{art} {thing.shape}:\n{capital(colour_form(thing.colour, gender))}")
        if colours[thing.colour] == 1:
            found.append(f"Sítio da forma {feminine}:\n{capital(where)}")
            found.append(f"Forma {feminine}:\n{capital(thing.shape)}")
    rng.shuffle(found)
    return found


def document(rng: random.Random) -> tuple[list[str], list[str]]:
    """(bags, paragraphs that follow from them) of a training-side scene or of written lines."""
    grid = rng.random() < 0.5
    if rng.random() < 0.12:
        lines = [words.any_string(rng, "train") for _ in range(rng.choice((1, 2)))]
        if len(lines) == 1:
            after = [f"Texto escrito:\n{lines[0]}"]
        else:
            after = [f"Texto {row_place(row)}:\n{line}" for row, line in enumerate(lines)]
        return panel_bags(lines, rng, grid), after
    scene = random_scene(rng, "train")
    while len(scene.things) < 2 and rng.random() < 0.9:  # with one thing there is nothing to tell apart
        scene = random_scene(rng, "train")
    others = prose.statements(scene, rng) + checks(scene, rng)
    after = bindings(scene, rng)[: 4 if grid else 8] + rng.sample(others, 2)
    rng.shuffle(after)
    if rng.random() < 0.3:
        after.append(questions.describe(scene))
    return scene_bags(scene, rng, grid), [capital(line) for line in after]
