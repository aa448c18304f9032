"""SimpleCodeOCR: functions of a permissive licence, each rendered and transcribed (section 5.1: "over 300k permissible
CodeSearchNet functions for a naive code OCR task").
"""

from functools import partial
from pathlib import Path

from data_prep.code import wording
from data_prep.code.filters import as_shown, distinct, fits, permissive, python_syntax
from data_prep.code.functions import read_functions
from data_prep.code.pictures import picture
from data_prep.code.questions import turns
from data_prep.engine import Barrier, Sample

QUESTIONS = Path(__file__).with_name("questions.yaml")


def pipeline(conf) -> list:
    """The steps, in order."""
    source = conf.functions
    return [
        partial(read_functions, files=source.files, licences=source.licences, languages=source.languages),
        partial(permissive, licences=source.permissive),
        as_shown,
        partial(fits, least=conf.lines.least, most=conf.lines.most, columns=conf.lines.columns),
        python_syntax,
        Barrier(distinct, reason="duplicate", fields=("code", "programming")),
        partial(picture, field="code", fonts=conf.fonts),
        partial(ask_to_transcribe, portuguese=conf.portuguese, fenced_share=conf.fenced),
    ]


def ask_to_transcribe(sample: Sample, run, *, portuguese: float, fenced_share: float) -> Sample:
    """The code itself is the answer, in a code block where the question asks for one."""
    language = wording.language_of(run.rng, portuguese)
    block = run.rng.random() < fenced_share
    question = wording.load(QUESTIONS).draw(run.rng, "fenced" if block else "plain", language)
    answer = wording.fenced(sample["code"], sample["programming"]) if block else sample["code"]
    return {"messages": turns(question, answer), "images": sample["images"], "language": language}
