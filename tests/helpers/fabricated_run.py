"""A small invented run folder in the layout of `make demo`: input for the report's tests, nothing was measured."""

import json
from pathlib import Path

from PIL import Image

from demo.run_folder import PAIRS
from demo.scenes.drawings import PHRASES, THINGS, Drawing

DRAWN = next(iter(PHRASES))
SCENE_KINDS = ("cor", "forma", "contagem", "posicao", "palavra", "sim_nao")
QUESTIONS, DRAWINGS = 60, 6  # drawings come after the questions
ASKED = QUESTIONS + DRAWINGS


def questions() -> list[dict]:
    """Of ten, eight scenes, one text panel, one photograph; then the drawings."""
    made = []
    for index in range(QUESTIONS):
        source = {8: "texto", 9: "fotografias"}.get(index % 10, "cenas")
        kind = SCENE_KINDS[index % 6] if source == "cenas" else {"texto": "texto"}.get(source, "fotografia")
        made.append({"key": f"q-{index:03d}", "kind": kind, "source": source, "question": f"Questão <{index}> & já?",
                     "answer": f"Resposta {index}", "image": f"images/q-{index:03d}.png"})  # fmt: skip
    for index, thing in zip(range(QUESTIONS, ASKED), THINGS, strict=True):
        answer = Drawing(thing, "verde").answer(DRAWN, "pt-PT")
        made.append({"key": f"q-{index:03d}", "kind": "desenho", "source": "desenhos", "question": DRAWN,
                     "answer": answer, "image": f"images/q-{index:03d}.png"})  # fmt: skip
    return made


def prediction(record: dict, index: int, when: str) -> str:
    """Before: right at every tenth. After: wrong at every seventh (so index 0 is lost, 10 kept, 1 learnt).

    Drawings: of stage 2 all but the last are pt-BR, of stage 3 only the one at 63.
    """
    if record["kind"] == "desenho" and when != "before":
        brazilian = index < ASKED - 1 if when == "sft" else index % 7 == 0
        drawing = Drawing(list(THINGS)[index - QUESTIONS], "verde")
        return drawing.answer(DRAWN, "pt-BR" if brazilian else "pt-PT")
    right = index % 10 == 0 if when == "before" else index % 7 != 0
    return record["answer"].upper() + "." if right else "<b>outra</b>"


def write_metrics(folder: Path, steps: int, modules: tuple[str, ...], more: tuple[str, ...] = ()) -> None:
    folder.mkdir(parents=True)
    records = [
        {"step": step, "loss": 4.0 / step, "grad_norm": 1.0, **{f"lr/{name}": 1e-3 / step for name in modules},
         "seconds": 0.5, "tokens_per_second": 800.0, "pack_fill": 0.8, "samples": 4, "tokens": 400,
         "image_tokens": 100, "loss_tokens": 80, "tiles": 12, **dict.fromkeys(more, 0.1 * step)}
        for step in range(1, steps + 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def make_run(folder: Path) -> Path:
    """Write the whole run folder; returns it."""
    write_metrics(folder / "alignment", 20, ("connector",))
    write_metrics(folder / "sft", 50, ("tower", "connector", "decoder"))
    write_metrics(folder / "dpo", 10, ("tower", "connector", "decoder"), PAIRS)
    (folder / "images").mkdir()
    asked = questions()
    for index, record in enumerate(asked):
        size = ((64, 64), (32, 64), (64, 32))[index % 3]
        Image.new("RGB", size, (4 * index, 90, 160)).save(folder / record["image"])
    for when in ("before", "sft", "after"):
        lines = [record | {"prediction": prediction(record, i, when)} for i, record in enumerate(asked)]
        (folder / f"answers_{when}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = {"parameters": 1_234_567, "layout": "TP=2 with everything, on Gloo", "seconds": {"data": 61.4, "sft": 30},
             "versions": {"torch": "9.9.9"}}  # fmt: skip
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder
