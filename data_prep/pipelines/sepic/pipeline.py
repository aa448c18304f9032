"""SePIC: a function and its call as a picture, a chain of thought, and what is printed (section 5.1)."""

from functools import partial
from pathlib import Path

from data_prep.code import wording
from data_prep.code.execution import printed
from data_prep.code.pictures import picture
from data_prep.code.questions import spread, turns
from data_prep.code.recheck import Recheck
from data_prep.code.steps import called_functions, choose_language, executor_of
from data_prep.engine import Sample
from data_prep.pipelines.sepic.trace import think

QUESTIONS = Path(__file__).with_name("questions.yaml")


def pipeline(conf) -> list:
    """The steps, in order."""
    executor, trace = executor_of(conf), conf.trace
    return [
        *called_functions(conf, executor),
        partial(choose_language, portuguese=conf.portuguese),
        partial(
            think,
            role=trace.role,
            tries=trace.tries,
            max_tokens=trace.max_tokens,
            temperature=trace.temperature,
            executor=executor,
        ),
        partial(place_call, in_picture=conf.call_in_picture),
        partial(picture, field="shown", fonts=conf.fonts),
        ask_for_output,
        Recheck(conf.sandbox.workers, dict(conf.sandbox.limits)),
        spread,
    ]


def place_call(sample: Sample, run, *, in_picture: float) -> Sample:
    """Adds "shown": the function with its call, or the function alone, the call then being in the question."""
    return sample | {"shown": sample["program"] if run.rng.random() < in_picture else sample["code"]}


def ask_for_output(sample: Sample, run) -> Sample:
    """Adds "variants": the one conversation, the output in a block at its end."""
    words, call = wording.load(QUESTIONS), wording.fenced(printed(sample["invocation"]), "python")
    if sample["shown"] == sample["program"]:
        question = words.draw(run.rng, "output", sample["language"])
    else:
        question = words.draw(run.rng, "output_of_call", sample["language"], call=call)
    end = words.draw(run.rng, "end", sample["language"], output=wording.fenced(sample["output"]))
    answer = f"{sample['reasoning']}\n\n{end}"
    return sample | {"variants": [{"kind": "direct", "messages": turns(question, answer)}]}
