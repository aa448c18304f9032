"""A paragraph to a conversation about one of its sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.engine import Run, Sample
from nemo_amalia.utils.errors import DataError

Questions = Mapping[str, Any]


def load_questions() -> Questions:
    """The wordings, in pt-PT: questions.yaml."""
    import yaml

    return yaml.safe_load((Path(__file__).parent / "questions.yaml").read_text(encoding="utf-8"))


def ask_about_a_sentence(sample: Sample, run: Run, *, questions: Questions, tasks: Sequence[str]) -> Sample:
    """Adds "messages": the text with a question of one task (first, last, nth, count), and its answer.

    Raises DataError on a task that has no wordings.
    """
    if unknown := sorted(set(tasks) - set(questions["tasks"])):
        raise DataError(f"task {unknown[0]} is not known: expected some of {', '.join(questions['tasks'])}")
    sentences, task = sample["sentences"], run.rng.choice(list(tasks))
    place = {"first": 0, "last": len(sentences) - 1, "nth": run.rng.randrange(len(sentences)), "count": 0}[task]
    wording = run.rng.choice(questions["tasks"][task])
    ordinals = questions["ordinals"]
    ordinal = ordinals[place] if place < len(ordinals) else f"{place + 1}.ª"
    answer = sentences[place]
    if task == "count":
        answer = questions["counts"]["one" if len(sentences) == 1 else "many"].format(number=len(sentences))
    question = f"{wording.format(ordinal=ordinal)}\n\n{sample['text']}"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return sample | {"messages": messages, "images": []}
