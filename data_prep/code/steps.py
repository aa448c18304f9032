"""Steps that several code data sets share: from a function's source to a call with its output."""

from functools import partial

from data_prep.code import wording
from data_prep.code.execution import Bounds, Executor
from data_prep.code.filters import as_shown, distinct, fits, one_function, permissive, self_contained
from data_prep.code.functions import read_functions
from data_prep.code.invocations import check_invocation, execute, propose
from data_prep.engine import Barrier, Sample


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


def choose_language(sample: Sample, run, *, portuguese: float) -> Sample:
    """Adds "language": that of the question and of the chain of thought."""
    return sample | {"language": wording.language_of(run.rng, portuguese)}
