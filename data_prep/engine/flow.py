"""One record's way through the steps of a phase."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.engine.ledger import Ledger
from data_prep.engine.model_access import PERMANENT, Meter, Models, NoModels, model_errors
from data_prep.engine.outputs import check_output
from data_prep.engine.steps import Drop, Phase, Run, Sample, Step
from nemo_amalia.utils.errors import ReportedError, UserError

KEPT = ("key", "source", "licence")  # what a sample inherits from the one it was made of


class StepError(ReportedError):
    """A step that broke: names step, sample and what happened. The run ends; the same command goes on after mending."""


def broken(what: str, error: Exception) -> StepError:
    """The one line about an error of a pipeline's own code; a UserError's text is for users already."""
    seen = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return StepError(f"{what} broke ({' '.join(seen.split())}): mend it and run the same command again, it goes on")


class RecordFailedError(RuntimeError):
    """A model gave up on a record; it is tried again later."""


@dataclass
class Item:
    """A sample on its way, with the (role, model) pairs and prompts that made it."""

    sample: Sample
    models: set[tuple[str, str]] = field(default_factory=set)
    prompts: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, Any]:
        """What from_json takes."""
        models = [list(pair) for pair in sorted(self.models)]
        return {"sample": self.sample, "models": models, "prompts": sorted(self.prompts)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Item:
        """Of to_json."""
        models = {(role, model) for role, model in content["models"]}
        return cls(content["sample"], models, set(content["prompts"]))


@dataclass
class Done:
    """What became of a record. drops: {"key", "step", "reason", "note"} each."""

    ledger: Ledger
    items: list[Item] = field(default_factory=list)
    drops: list[dict[str, str]] = field(default_factory=list)


class Flow:
    """The steps of one phase, with what they share.

    concurrency: calls of async steps at once. last: the phase's samples are those of the data set and must look so.
    """

    def __init__(self, phase: Phase, seed: int, models: Models | None, concurrency: int, last: bool) -> None:
        self._phase, self._seed, self._models, self._last = phase, seed, models, last
        self._slots = asyncio.Semaphore(concurrency)
        self._model_errors = model_errors()

    async def run(self, record: Item, give_up: bool = False) -> Done:
        """All steps. Raises StepError where one breaks, RecordFailedError where a model gave up; with `give_up` such
        a sample is dropped as model_REASON instead.
        """
        done = Done(Ledger.of([step.name for step in self._phase.steps]))
        done.ledger.records = 1
        done.items = await self._from(0, record, done, give_up)
        done.ledger.samples = len(done.items)
        if self._last:
            for item in done.items:
                check_output(item.sample)
        return done

    async def _from(self, position: int, item: Item, done: Done, give_up: bool) -> list[Item]:
        """The samples that one sample before the step at `position` becomes, in order."""
        for number in range(position, len(self._phase.steps)):
            outputs = await self._apply(number, item, done, give_up)
            if len(outputs) != 1:
                rest = (self._from(number + 1, output, done, give_up) for output in outputs)
                results = await asyncio.gather(*rest, return_exceptions=True)  # no sample of the record is cut short
                for error in results:
                    if isinstance(error, BaseException):
                        raise error
                return [one for ones in results for one in ones]
            item = outputs[0]
        return [item]

    async def _apply(self, number: int, item: Item, done: Done, give_up: bool) -> list[Item]:
        step, counts = self._phase.steps[number], done.ledger.steps[number]
        counts.into += 1
        key = item.sample["key"]
        models, prompts = set(item.models), set(item.prompts)
        try:
            result = await self._call(step, item, done.ledger.usage, models, prompts)
            children = _children(step, item.sample, result)
        except Drop as drop:
            return _dropped(done, number, key, drop.reason, drop.note)
        except self._model_errors as error:
            if give_up or error.reason in PERMANENT:
                return _dropped(done, number, key, f"model_{error.reason}", str(error))
            raise RecordFailedError(f"step {step.name} of sample {key}: {error}") from error
        except StepError:
            raise
        except Exception as error:
            raise broken(f"step {step.name} of sample {key}", error) from error
        counts.out += len(children)
        counts.added += len(children) - 1
        return [Item(child, set(models), set(prompts)) for child in children]

    async def _call(
        self, step: Step, item: Item, usage: Counter[str], models: set[tuple[str, str]], prompts: set[str]
    ) -> Any:
        meter = Meter(self._models or NoModels(), usage, models, prompts)
        run = Run(self._seed, step.name, item.sample["key"], meter)
        if not step.is_async:
            return step.call(item.sample, run)
        async with self._slots:
            return await step.call(item.sample, run)


def _dropped(done: Done, number: int, key: str, reason: str, note: str) -> list[Item]:
    counts = done.ledger.steps[number]
    counts.dropped[reason] += 1
    done.drops.append({"key": key, "step": counts.name, "reason": reason, "note": note})
    return []


def _children(step: Step, sample: Sample, result: Any) -> Sequence[Sample]:
    """A step's result as samples with the parent's key, source and licence, unless the step gave others. In a list the
    keys get -0, -1, ... Raises StepError on a result of another kind, and on an empty list: nothing is lost without a
    name.
    """
    kept = {name: sample[name] for name in KEPT}
    if isinstance(result, dict):
        return [kept | result]
    if not isinstance(result, list) or not result or not all(isinstance(one, dict) for one in result):
        seen = "an empty list" if result == [] else type(result).__name__
        remedy = 'return a dict or a list of dicts, or raise Drop("reason")'
        raise StepError(f"step {step.name} of sample {sample['key']} returned {seen}: {remedy}")
    children = [kept | one for one in result]
    for place, child in enumerate(children):
        if child["key"] == sample["key"]:
            child["key"] = f"{sample['key']}-{place}"
    return children
