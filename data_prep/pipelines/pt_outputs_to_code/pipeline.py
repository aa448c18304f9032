"""PTOutputsToCode: SePIC reversed; the picture shows an output, the options are functions with a call (section 5.1)."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_prep.code import wording
from data_prep.code.distractors import with_distractors
from data_prep.code.execution import Executor, program
from data_prep.code.mutations import mutants
from data_prep.code.pictures import picture
from data_prep.code.questions import listed, placed, spread, turns
from data_prep.code.recheck import Recheck
from data_prep.code.steps import called_functions, choose_language, executor_of
from data_prep.engine import Sample

QUESTIONS = Path(__file__).with_name("questions.yaml")
WRONG = 3


def pipeline(conf) -> list:
    """The steps, in order."""
    executor = executor_of(conf)
    return [
        *called_functions(conf, executor),
        partial(distract, tries=conf.distractors.tries, executor=executor),
        partial(choose_language, portuguese=conf.portuguese),
        partial(picture, field="output", fonts=conf.fonts, programming="text"),
        ask_which_program,
        Recheck(conf.sandbox.workers, dict(conf.sandbox.limits)),
        spread,
    ]


async def distract(sample: Sample, run, *, tries: int, executor: Executor) -> Sample:
    """Four programs of which each prints something else, one of them the right one: "program", "output", "wrong"."""
    others = candidates(sample, run.rng)
    return await with_distractors(sample, run, others, number=WRONG, tries=tries, executor=executor)


def candidates(sample: Sample, rng) -> Iterator[str]:
    """The function with another of its calls first, then with one token changed in it or in its call, and so on."""
    siblings = iter([program(sample["code"], call) for call in rng.sample(sample["siblings"], len(sample["siblings"]))])
    changed = mutants(sample["program"], rng)
    yield from itertools.islice(siblings, 1)
    yield from itertools.islice(changed, WRONG - 1)
    yield from siblings
    yield from changed


def ask_which_program(sample: Sample, run) -> Sample:
    """Adds "variants": the one conversation, the right program under a letter drawn by chance."""
    options, letter = placed(run.rng, sample["program"].rstrip(), [code.rstrip() for code, _ in sample["wrong"]])
    words = wording.load(QUESTIONS)
    question = words.draw(run.rng, "which", sample["language"], options=listed(options, "python"))
    answer = words.draw(run.rng, "answer", sample["language"], letter=letter)
    return sample | {"variants": [{"kind": "choose_code", "messages": turns(question, answer)}]}
