"""The demo's data sets as plain dictionaries: captions (stage 1), conversations (2), pairs (3), evaluation.

Each sample is made from its own random stream (data set, seed, index) alone: the same on every machine, and
independent of how many processes make it. The pictures are PNG and JPEG bytes at their drawn size.
"""

import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from PIL import Image, ImageDraw

from demo.scenes import drawings, photos, questions, scenes, words
from demo.scenes.questions import Question
from demo.scenes.split import Side

#: Shares of the three sources in the two training sets.
SHARES = {"cenas": 0.81, "texto": 0.14, "fotografias": 0.05}
DRAWINGS_EVERY = 10  # of stage 2's conversations: one of ten is about a drawing, in either variety
_LANGUAGE = "pt-PT"
_DESCRIBE = ("Descreve a imagem.", "O que se vê na imagem?", "Diz o que está na imagem.")
_POOL_FROM = 400


def text_panel(rng: random.Random, side: Side, rows: int) -> tuple[Image.Image, list[str], tuple]:
    """A picture of 1 or 2 lines of text (words, acronyms, names), one a row; the lines; each letter's box."""
    width, height, scale = 256, 128 if rows == 1 else 256, 2
    shade = rng.randint(225, 255)
    image = Image.new("RGB", (width * scale, height * scale), (shade, shade, min(255, shade + rng.randint(0, 12))))
    draw = ImageDraw.Draw(image)
    lines, boxes = [], []
    for row in range(rows):
        line = words.any_string(rng, side)
        band = height * scale / rows
        boxes += scenes.write(draw, line, (0.0, row * band, width * scale, (row + 1) * band), rng, scale)
        lines.append(line)
    return image.reduce(scale), lines, tuple(boxes)


def _panel_letters(lines: list[str], rng: random.Random) -> list[Question]:
    if len(lines) == 1:
        return questions.letters(lines[0], "do texto", 3, rng)
    return [q for row, line in enumerate(lines) for q in questions.letters(line, scenes.row_place(row), 2, rng)]


def _panel_questions(lines: list[str], rng: random.Random) -> list[Question]:
    if len(lines) == 1:
        text = rng.choice(("Que texto está escrito?", "O que está escrito na imagem?"))
        return [Question("texto", "texto", text, lines[0])]
    asked = [
        Question("texto", f"texto {row}", f"Que texto está {scenes.row_place(row)}?", line)
        for row, line in enumerate(lines)
    ]
    rng.shuffle(asked)
    return asked


def _panel_caption(lines: list[str]) -> str:
    return "Texto: " + ", ".join(lines) + "."


def _messages(turns: list[tuple[str, str]]) -> list[dict]:
    messages = []
    for index, (question, answer) in enumerate(turns):
        content = [{"type": "text", "text": question}]
        if index == 0:
            content.insert(0, {"type": "image"})
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


def _sample(key: str, source: str, image: Image.Image, turns: list[tuple[str, str]], rng: random.Random) -> dict:
    return {
        "key": key,
        "messages": _messages(turns),
        "images": [scenes.encode(image, rng)],
        "source": source,
        "language": _LANGUAGE,
    }


def _picture(source: str, rng: random.Random, side: Side):
    """(picture, caption, questions asker) of one source."""
    if source == "cenas":
        scene = scenes.random_scene(rng, side)
        while side == "train" and len(scene.things) < 2 and rng.random() < 0.6:  # one thing alone teaches little
            scene = scenes.random_scene(rng, side)
        image = scenes.paint(scene, rng).image
        spelt = questions.letters(scene.word, "da palavra", 2, rng) if scene.word else []
        turns = rng.choice((5, 6, 7) if spelt else (6, 7, 8))
        return image, questions.describe(scene), lambda: spelt + questions.conversation(scene, rng, turns)
    if source == "texto":
        image, lines, _ = text_panel(rng, side, rng.choice((1, 2)))
        spelt = _panel_letters(lines, rng) if side == "train" else []
        return image, _panel_caption(lines), lambda: spelt + _panel_questions(lines, rng)
    photo = photos.random_photo(rng, side)
    return photos.crop(photo, rng), photo.caption, lambda: photos.ask(photo, rng)


def alignment_sample(index: int, seed: int) -> dict:
    """Stage 1: one picture and its caption."""
    rng = random.Random(f"alignment-{seed}-{index}")
    source = rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
    image, caption, _ = _picture(source, rng, "train")
    turns = [(rng.choice(_DESCRIBE), caption)]
    return _sample(f"alinhamento-{seed}-{index:06d}", source, image, turns, rng)


def _drawn(rng: random.Random, side: Side):
    """(drawing, question)."""
    return drawings.random_drawing(rng, side), rng.choice(list(drawings.PHRASES))


def sft_sample(index: int, seed: int) -> dict:
    """Stage 2: one picture, several questions; at times a description, last, where it gives nothing away."""
    rng = random.Random(f"sft-{seed}-{index}")
    if index % DRAWINGS_EVERY == DRAWINGS_EVERY - 1:
        drawing, question = _drawn(rng, "train")
        variety = "pt-BR" if rng.random() < drawings.BRAZILIAN else "pt-PT"
        turns = [(question, drawing.answer(question, variety))]
        key = f"desenho-{seed}-{index:06d}"
        return _sample(key, "desenhos", drawings.paint(drawing, rng), turns, rng) | {"language": variety}
    source = rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
    image, caption, ask = _picture(source, rng, "train")
    turns = [(question.text, question.answer) for question in ask()]
    if source == "fotografias" or rng.random() < 0.35:
        turns.append((rng.choice(_DESCRIBE), caption))
    return _sample(f"conversa-{seed}-{index:06d}", source, image, turns, rng)


def pair_sample(index: int, seed: int) -> dict:
    """Stage 3: one drawing, one question, the pt-PT answer chosen and the pt-BR one rejected."""
    rng = random.Random(f"pares-{seed}-{index}")
    drawing, question = _drawn(rng, "train")
    chosen, rejected = (
        _messages([(question, drawing.answer(question, variety))])[1:] for variety in drawings.VARIETIES
    )
    sample = _sample(f"par-{seed}-{index:06d}", "desenhos", drawings.paint(drawing, rng), [(question, "")], rng)
    return sample | {"messages": sample["messages"][:1], "chosen": chosen, "rejected": rejected}


def drawing_question(index: int, seed: int) -> dict:
    """Evaluation of stage 3: one held-out drawing and one question; its answer is the pt-PT one."""
    rng = random.Random(f"desenhos-{seed}-{index}")
    drawing, text = _drawn(rng, "eval")
    question = Question("desenho", "desenho", text, drawing.answer(text, "pt-PT"))
    return _asked(f"desenhado-{seed}-{index:06d}", "desenhos", drawings.paint(drawing, rng), question, rng)


def eval_sample(index: int, seed: int) -> dict:
    """Evaluation: one held-out picture and one question. Of ten, eight are scenes, of each kind in turn."""
    rng = random.Random(f"eval-{seed}-{index}")
    source = {8: "texto", 9: "fotografias"}.get(index % 10, "cenas")
    if source == "cenas":
        kind = questions.KINDS[(index // 10 * 8 + index % 10) % len(questions.KINDS)]
        asked: list[Question] = []
        while not asked:
            scene = scenes.random_scene(rng, "eval", word_share=1.0 if kind == "palavra" else 0.35)
            asked = questions.ask(scene, kind, rng)
        image, question = scenes.paint(scene, rng).image, rng.choice(asked)
    else:
        image, _, ask = _picture(source, rng, "eval")
        question = rng.choice(ask())
    return _asked(f"avaliacao-{seed}-{index:06d}", source, image, question, rng)


def _asked(key: str, source: str, image: Image.Image, question: Question, rng: random.Random) -> dict:
    sample = _sample(key, source, image, [(question.text, question.answer)], rng)
    extra = {
        "kind": question.kind,
        "question": question.text,
        "answer": question.answer,
        "prompt": sample["messages"][:1],
    }
    return sample | extra


def _make(job: tuple) -> dict:
    maker, index, seed = job
    return maker(index, seed)


def _stream(maker, n: int, seed: int, workers: int | None) -> Iterator[dict]:
    jobs = ((maker, index, seed) for index in range(n))
    workers = workers if workers is not None else min(4, len(os.sched_getaffinity(0)))
    if n < _POOL_FROM or workers < 2:
        yield from map(_make, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_make, jobs, chunksize=32)


def alignment_samples(n: int, seed: int, workers: int | None = None) -> Iterator[dict]:
    """`n` samples of stage 1 ({key, messages, images, source, language}), in order."""
    return _stream(alignment_sample, n, seed, workers)


def sft_samples(n: int, seed: int, workers: int | None = None) -> Iterator[dict]:
    """`n` conversations of stage 2, in order."""
    return _stream(sft_sample, n, seed, workers)


def eval_samples(n: int, seed: int, workers: int | None = None) -> Iterator[dict]:
    """`n` held-out questions, in order; each adds kind, question, answer and prompt (messages)."""
    return _stream(eval_sample, n, seed, workers)


def pair_samples(n: int, seed: int, workers: int | None = None) -> Iterator[dict]:
    """`n` preference pairs of stage 3, in order: messages is the prompt; chosen and rejected answer it."""
    return _stream(pair_sample, n, seed, workers)


def drawing_questions(n: int, seed: int, workers: int | None = None) -> Iterator[dict]:
    """`n` questions about held-out drawings, in order, with the fields of eval_samples."""
    return _stream(drawing_question, n, seed, workers)
