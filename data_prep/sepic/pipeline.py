"""SePIC: a function and its call as a picture, a chain of thought, and what is printed (section 5.1)."""

from functools import partial
from pathlib import Path

from data_prep.common import wording
from data_prep.common.code_pictures import picture
from data_prep.common.code_questions import spread, turns
from data_prep.common.engine import Barrier, Sample
from data_prep.common.execution import Bounds, Executor, printed
from data_prep.common.function_filters import as_shown, distinct, fits, one_function, permissive, self_contained
from data_prep.common.functions import read_functions
from data_prep.common.invocations import check_invocation, execute, propose
from data_prep.common.recheck import Recheck
from data_prep.sepic.trace import think

QUESTIONS = Path(__file__).with_name("questions.yaml")


def called_functions(conf, executor: Executor) -> list:
    """The steps up to a function with a call and its output; PTOutputsToCode begins with them, too."""
    source, lines, calls = conf.functions, conf.lines, conf.invocations
    return [
        partial(read_functions, files=source.files, licences=source.licences, languages=["python"]),
        partial(permissive, licences=source.permissive),
        as_shown,
        one_function,
        self_contained,
        partial(fits, least=lines.least, most=lines.most, columns=lines.columns),
        Barrier(distinct, reason="duplicate", fields=("code", "programming")),
        partial(
            propose, role=calls.role, number=calls.number, max_tokens=calls.max_tokens, temperature=calls.temperature
        ),
        check_invocation,
        partial(execute, executor=executor),
    ]


def executor_of(conf) -> Executor:
    """The sandbox of a configuration."""
    return Executor(conf.sandbox.workers, dict(conf.sandbox.limits), Bounds(**conf.output))


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


def choose_language(sample: Sample, run, *, portuguese: float) -> Sample:
    """Adds "language": that of the question and of the chain of thought."""
    return sample | {"language": wording.language_of(run.rng, portuguese)}


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
