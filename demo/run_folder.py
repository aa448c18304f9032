"""What a finished demo run left behind, read and checked in one place for the report and its figures.

RUN/{alignment,sft,dpo}/metrics.jsonl hold one object a step (nemo_amalia/training/callbacks/progress.py);
RUN/answers_{before,sft,after}.jsonl (untrained, after stage 2, after stage 3) one a question (demo/answer.py);
RUN/facts.json is free.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from demo.errors import DemoError
from nemo_amalia.utils.files import read_json

#: folder of the stage -> its name in the report.
STAGES = {"alignment": "stage 1 · connector", "sft": "stage 2 · everything", "dpo": "stage 3 · preferences"}
METRICS = ("step", "loss", "seconds", "tokens_per_second", "pack_fill", "samples", "tokens", "image_tokens", "tiles")
PAIRS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")  # of stage 3, too
ANSWERS = ("before", "sft", "after")
RECORD = ("key", "kind", "source", "question", "answer", "prediction", "image")

#: kind of question -> its English name.
KIND_NAMES = {
    "cor": "colour",
    "forma": "shape",
    "contagem": "count",
    "posicao": "position",
    "palavra": "written word",
    "sim_nao": "yes or no",
    "texto": "text panel",
    "fotografia": "photograph",
    "desenho": "drawing, in pt-PT",
}


@dataclass(frozen=True)
class RunInputs:
    """A run as the report sees it: steps of each stage, answers in one order, free facts."""

    folder: Path
    stages: dict[str, list[dict]]
    before: list[dict]
    sft: list[dict]
    after: list[dict]
    facts: dict

    @property
    def struck(self) -> list[dict]:
        """The answers that a later one replaced: those before training, and of drawings those of stage 2."""
        return [s if s["kind"] == "desenho" else b for b, s in zip(self.before, self.sft, strict=True)]

    def total(self, stage: str, name: str) -> float:
        """The sum of one metric over the steps of a stage."""
        return sum(step[name] for step in self.stages[stage])


def read_lines(path: Path, required: tuple[str, ...]) -> list[dict]:
    """The objects of a JSON-lines file, each with the required fields.

    Raises:
        DemoError: the file is missing or empty, a line is no JSON object, or a field is missing.
    """
    if not path.is_file():
        raise DemoError(f"{path} is missing: run `make demo` to its end, or give another --run folder")
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DemoError(f"{path}, line {number}, is not JSON ({error.msg}): it is torn, run again") from error
        absent = [name for name in required if not isinstance(record, dict) or name not in record]
        if absent:
            raise DemoError(f"{path}, line {number}, lacks {', '.join(absent)}: write it with this version")
        records.append(record)
    if not records:
        raise DemoError(f"{path} is empty, expected one line a step or a question: run `make demo` to its end")
    return records


def read_run(folder: Path) -> RunInputs:
    """Read and check a run folder.

    Raises:
        DemoError: an input is missing, torn or empty, or before and after answer different questions.
    """
    folder = Path(folder)
    stages = {
        stage: read_lines(folder / stage / "metrics.jsonl", METRICS + (PAIRS if stage == "dpo" else ()))
        for stage in STAGES
    }
    before, sft, after = answers = [read_lines(folder / f"answers_{when}.jsonl", RECORD) for when in ANSWERS]
    asked = [[(r["key"], r["question"], r["answer"]) for r in records] for records in answers]
    other = next((when for when, mine in zip(ANSWERS, asked, strict=True) if mine != asked[-1]), None)
    if other is not None:
        raise DemoError(
            f"answers_{other}.jsonl ({len(asked[ANSWERS.index(other)])} lines) and answers_after.jsonl ({len(after)}) "
            f"of {folder} are not of the same questions in the same order: ask with one --samples, --drawings, --seed"
        )
    absent = [record["image"] for record in after if not (folder / record["image"]).is_file()]
    if absent:
        raise DemoError(f"{folder / absent[0]} is missing ({len(absent)} pictures in all): run demo.answer again")
    path = folder / "facts.json"
    if not path.is_file():
        raise DemoError(f"{path} is missing: run `make demo` to its end, or give another --run folder")
    try:
        facts = read_json(path)
    except json.JSONDecodeError as error:
        raise DemoError(f"{path} is not JSON ({error.msg}): run `make demo` again") from error
    if not isinstance(facts, dict):
        raise DemoError(f"{path} holds a {type(facts).__name__}, expected an object: run `make demo` again")
    return RunInputs(folder, stages, before, sft, after, facts)
