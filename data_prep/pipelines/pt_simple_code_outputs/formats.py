"""The three formats of a question about what a program prints: yes/no, direct, multiple choice (section 5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.code import wording
from data_prep.code.distractors import with_distractors
from data_prep.code.execution import Executor
from data_prep.code.mutations import mutants
from data_prep.code.questions import listed, placed, turns
from data_prep.engine import Sample
from data_prep.seeds import weighted
from nemo_amalia.utils.errors import ConfigError

QUESTIONS = Path(__file__).with_name("questions.yaml")
WRONG = {"direct": 0, "yes_no": 1, "multiple_choice": 3}


def choose_format(sample: Sample, run: Any, *, shares: Mapping[str, float]) -> Sample:
    """Adds "format", drawn by share. Raises ConfigError on a share of something else."""
    if unknown := sorted(set(shares) - set(WRONG)):
        raise ConfigError(f"format {unknown[0]!r} is unknown: formats takes {', '.join(WRONG)}")
    return sample | {"format": weighted(run.rng, dict(shares))}


async def distract(sample: Sample, run: Any, *, tries: int, executor: Executor) -> Sample:
    """As many other programs as the format needs, one token and the output apart; "code" is the one to be shown."""
    number = WRONG[sample["format"]]
    if not number:
        return sample | {"wrong": []}
    others = mutants(sample["program"], run.rng)
    found = await with_distractors(sample, run, others, number=number, tries=tries, executor=executor)
    return found | {"code": found["program"]}


def ask(sample: Sample, run: Any) -> Sample:
    """Adds "variants". A yes/no question is asked twice of one picture, once with what it prints and once with what it
    does not, so that yes and no are equally many in every shard, whatever is dropped, and the picture tells neither.
    """
    words, language, rng = wording.load(QUESTIONS), sample["language"], run.rng
    output, variants = sample["output"], []
    if sample["format"] == "direct":
        style = "block" if "\n" in output or output != output.strip() or rng.random() < 0.5 else "bare"
        shown = wording.fenced(output) if style == "block" else output
        question = words.draw(rng, f"direct_{style}", language)
        variants.append({"kind": "direct", "messages": turns(question, shown)})
    elif sample["format"] == "multiple_choice":
        options, letter = placed(rng, output, [text for _, text in sample["wrong"]])
        question = words.draw(rng, "multiple_choice", language, options=listed(options))
        answer = words.draw(rng, "letter", language, letter=letter)
        variants.append({"kind": "choose_output", "messages": turns(question, answer)})
    else:
        style = rng.choice(("short", "full"))
        for claim, kind in ((output, "yes"), (sample["wrong"][0][1], "no")):
            question = words.draw(rng, "yes_no", language, claim=wording.fenced(claim))
            answer = words.draw(rng, f"{kind}_{style}", language, output=wording.fenced(output))
            variants.append({"kind": "yes_no", "messages": turns(question, answer)})
    return sample | {"variants": variants}
