"""translate: conversations in English, read from shards, come out in pt-PT (paper, section 4.2).

amalia-data translate run data.path=FOLDER data.licence=NAME models=paper out=data/FOLDER-pt
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from data_prep.engine import Drop
from data_prep.models.ask import ModelError
from data_prep.pipelines.translate import report
from data_prep.pipelines.translate.sources import read_conversations
from data_prep.translation.translator import Options, Translator, Untranslatable


def pipeline(conf: Any) -> list:
    """The steps, in order."""
    evidence = None
    if conf.variety:
        from nemo_amalia.variety.evidence import evidence
    named = {field.name: conf[field.name] for field in fields(Options)}
    return [
        partial(read_conversations, path=conf.data.path, licence=conf.data.licence, source=conf.data.source),
        only_english,
        Translate(Options(**named), evidence, report.Log(conf.run_dir)),
    ]


def only_english(sample: dict[str, Any], run: Any) -> dict[str, Any]:
    """Drops what says that it is in another language."""
    language = sample.get("language") or "en"
    if not language.lower().startswith("en"):
        raise Drop("not_english", language)
    return sample


class Translate:
    """The step: a Translator on the run's models, and a record of each end."""

    name = "translate"

    def __init__(self, options: Options, evidence: Callable[[str], Any] | None, log: report.Log) -> None:
        self._options, self._evidence, self._log = options, evidence, log

    async def __call__(self, sample: dict[str, Any], run: Any) -> dict[str, Any]:
        """The sample in pt-PT. Raises Drop with the guard's name."""
        translator = Translator(run.models, self._options, self._evidence)
        work = translator.work(sample)
        try:
            done = await translator.translate(sample, work)
        except ModelError as error:  # the engine asks again or drops it, by this name
            self._log.write(report.record(sample["key"], work, f"model_{error.reason}", str(error)))
            raise
        except Untranslatable as error:
            self._log.write(report.record(sample["key"], error.work, error.reason, str(error)))
            raise Drop(error.reason, str(error)) from error
        self._log.write(report.record(sample["key"], done.work))
        return done.sample
