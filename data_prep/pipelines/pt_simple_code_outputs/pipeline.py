"""PTSimpleCodeOutputs: short programs that a model wrote, as pictures, asked for what they print (section 5.1)."""

from functools import partial

from data_prep.code.filters import as_shown, distinct
from data_prep.code.invocations import execute
from data_prep.code.pictures import picture
from data_prep.code.questions import spread
from data_prep.code.recheck import Recheck
from data_prep.code.steps import executor_of
from data_prep.engine import Barrier
from data_prep.pipelines.pt_simple_code_outputs.formats import ask, choose_format, distract
from data_prep.pipelines.pt_simple_code_outputs.snippets import check_snippet, check_variety, topics, write


def pipeline(conf) -> list:
    """The steps, in order."""
    executor, snippets = executor_of(conf), conf.snippets
    return [
        partial(
            topics, requests=snippets.requests, portuguese=conf.portuguese, licence=snippets.licence, seed=conf.seed
        ),
        partial(
            write,
            role=snippets.role,
            number=snippets.number,
            lines=conf.lines.most,
            max_tokens=snippets.max_tokens,
            temperature=snippets.temperature,
        ),
        as_shown,
        partial(check_snippet, most=conf.lines.most, columns=conf.lines.columns),
        check_variety,
        Barrier(distinct, reason="duplicate", fields=("code", "programming")),
        partial(execute, executor=executor),
        partial(choose_format, shares=dict(conf.formats)),
        partial(distract, tries=conf.distractors.tries, executor=executor),
        partial(picture, field="code", fonts=conf.fonts),
        ask,
        Recheck(conf.sandbox.workers, dict(conf.sandbox.limits)),
        spread,
    ]
