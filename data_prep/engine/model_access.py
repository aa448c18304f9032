"""What the engine needs of a model client, and the meter between it and a step: calls, tokens, cost, provenance.

The client itself is data_prep/models/ask.py; the engine knows only these shapes.
"""

from __future__ import annotations

import importlib
from collections import Counter
from typing import Any, Protocol

from nemo_amalia.utils.errors import DataError

PERMANENT = {"schema", "truncated", "empty"}  # asking once more would end the same way


class ModelError(RuntimeError):
    """A model call that was given up, after the client's own retries. reason: as that of the client's ModelError."""

    def __init__(self, message: str, reason: str = "gave_up") -> None:
        super().__init__(message)
        self.reason = reason


class Request(Protocol):
    """role: which model is asked, by its part in the pipeline. prompt: "name@hash" of the prompt's file."""

    role: str
    prompt: str


class Answer(Protocol):
    """model: name with version. cost: in the currency of the configuration. cached: no model was asked."""

    model: str
    tokens_in: int
    tokens_out: int
    cost: float
    cached: bool


class Models(Protocol):
    """Routes by role, retries, caches. Raises ModelError when it gives up. One that sends calls again may have
    `counters`: by role what has `retried`, the number of those calls by cause. One whose servers ask to wait may have
    `pauses()`: seconds from now on, by server.
    """

    async def ask(self, request: Any) -> Any:
        """One answer to one request."""


class NoModels:
    """Of a pipeline whose configuration names none."""

    async def ask(self, request: Request) -> Answer:
        """Raises DataError: a step asks all the same."""
        raise DataError(
            f"nothing says which model answers {request.role!r}: add `- models: local` to the defaults of the "
            "pipeline's .yaml, and the role where it is none of conf/data_prep/models (docs/data_prep/models.md)"
        )


class Meter:
    """A Models for one sample of one step: passes requests on and keeps what they used.

    usage: calls, cached, tokens_in, tokens_out, cost of the whole record. models: {(role, model)}, prompts: both become
    the sample's provenance.
    """

    def __init__(self, models: Models, usage: Counter[str], called: set[tuple[str, str]], prompts: set[str]) -> None:
        self._models, self._usage, self._called, self._prompts = models, usage, called, prompts

    async def ask(self, request: Request) -> Answer:
        """As Models.ask. A cached answer counts as cached, and costs no call, token or money."""
        answer = await self._models.ask(request)
        if answer.cached:
            self._usage["cached"] += 1
        else:
            self._usage.update(calls=1, tokens_in=answer.tokens_in, tokens_out=answer.tokens_out, cost=answer.cost or 0)
        self._called.add((request.role, answer.model))
        if request.prompt:
            self._prompts.add(request.prompt)
        return answer


class Retries:
    """The calls of a task that a client sent again, by cause: each is under way until it is taken, once, with the
    record that is stored next. Of a server that is away no record is ever stored.
    """

    def __init__(self, models: Models | None) -> None:
        self._by_role = getattr(models, "counters", {})
        self._taken: Counter[str] = Counter()

    def under_way(self) -> Counter[str]:
        """Those that no stored record has."""
        return sum((counts.retried for counts in self._by_role.values()), Counter()) - self._taken

    def take(self) -> Counter[str]:
        """Those under way, which are so no more."""
        taken = self.under_way()
        self._taken += taken
        return taken


def open_models(module: Any, conf: Any) -> Models | None:
    """The client of a pipeline: its own `models(conf)` where its module has one, else that of data_prep.models.ask
    where the configuration has `models`, else None.
    """
    if hasattr(module, "models"):
        return module.models(conf)
    if not conf.get("models"):
        return None
    from omegaconf import OmegaConf

    from data_prep.models.answer_cache import AnswerCache
    from data_prep.models.ask import Models as Client
    from data_prep.models.routes import routes_from

    journal = "wal" if conf.executor.name == "local" else "delete"  # WAL's shared memory does not work between hosts
    routes = routes_from(OmegaConf.to_container(conf.models, resolve=True))
    return Client(routes, AnswerCache(conf.answers, journal), workers=conf.executor.workers)


def model_errors() -> tuple[type[Exception], ...]:
    """What counts as a model that failed: our ModelError, and the client's where it is installed."""
    try:
        return ModelError, importlib.import_module("data_prep.models.ask").ModelError
    except (ImportError, AttributeError):
        return (ModelError,)
