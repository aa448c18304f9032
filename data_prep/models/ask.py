"""Asking models: a role's question in, a checked answer out (issue 6, part 2).

    async with Models(routes_from(config), AnswerCache(folder)) as models:
        answer = await models.ask(Request("judge", messages, images=(jpeg,), schema=SCHEMA, prompt=prompt.id))

Behind `ask`: the role's server and model, the cache, rate limits, retries, JSON validated by its schema and asked again
with the reason. One Models belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.models import json_answers, prompts, wire
from data_prep.models.answer_cache import AnswerCache, content_key
from data_prep.models.client import Client, ModelError, Reply
from data_prep.models.counters import Counters, RoleCounts
from data_prep.models.routes import Route, Routes

__all__ = ["Answer", "ModelError", "Models", "Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """One question.

    role: who is asked (conf/data_prep/models/). messages: chat turns; {"type": "image"} parts take the images in order,
    without them the images go before the first user text. images: compressed bytes, or paths. schema: JSON schema of
    the answer. seed: two drawings of one question are two seeds; without, the cache gives the same answer again.
    max_tokens: of the answer; an answer that is cut there is an error, never a shorter answer. prompt: Prompt.id.
    """

    role: str
    messages: Sequence[Mapping[str, Any]]
    images: Sequence[wire.Image] = ()
    schema: Mapping[str, Any] | None = None
    seed: int | None = None
    temperature: float = 0.0
    max_tokens: int = 2048
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a role answered.

    text: as the model wrote it; data: the JSON in it, when the request had a schema. model: name@version. tokens_in,
    tokens_out, cost: what it took when it was asked, re-asks too. cached: not asked now; attempts: calls made now.
    """

    text: str
    data: Any
    model: str
    tokens_in: int
    tokens_out: int
    cost: float
    cached: bool
    attempts: int


class Models:
    """Every model of a run, by role.

    cache: None asks every time. workers: processes that share the servers' limits; each takes its part.
    """

    def __init__(self, routes: Routes, cache: AnswerCache | None = None, workers: int = 1) -> None:
        self.routes, self.cache, self.counters = routes, cache, Counters()
        self._share = 1 / max(1, workers)
        self._clients: dict[str, Client] = {}
        self._asking: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def __aenter__(self) -> Models:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes connections and cache."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()
        if self.cache is not None:
            self.cache.close()

    async def ask(self, request: Request) -> Answer:
        """The answer. Raises ModelError with a reason when there is none, ValueError on a request that is wrong."""
        route = self.routes.route(request.role)
        counts = self.counters[request.role]
        counts.asked += 1
        try:
            answer = await self._ask(request, route, counts)
        except ModelError as error:
            counts.failed[error.reason] += 1
            raise
        except BaseException as error:
            counts.failed["cancelled" if isinstance(error, asyncio.CancelledError) else "error"] += 1
            raise
        if answer.cached:
            counts.cached += 1
        else:
            counts.answered += 1
        return answer

    def pauses(self) -> dict[str, float]:
        """Server -> seconds that it asked all callers to wait from now on (Retry-After); only those that did."""
        return {name: paused for name, client in self._clients.items() if (paused := client.limiter.paused)}

    def key(self, request: Request) -> str:
        """The cache's key: everything that decides the answer, and nothing of where it is computed."""
        route = self.routes.route(request.role)
        return content_key(
            model=route.model,
            version=route.version,
            messages=list(request.messages),
            images=wire.fingerprints(request.images),
            schema=request.schema,
            sampling=wire.sampling(route, request.temperature, request.seed, request.max_tokens),
            prompt=request.prompt,
        )

    async def _ask(self, request: Request, route: Route, counts: RoleCounts) -> Answer:
        if self.cache is None:
            return self._answer(request, route, await self._fresh(request, route, counts), cached=False)
        key = self.key(request)
        lock = self._asking.setdefault(key, asyncio.Lock())  # the same question twice at once is one call
        async with lock:
            stored = self.cache.get(key)
            if stored is not None:
                return self._answer(request, route, stored, cached=True)
            fresh = await self._fresh(request, route, counts)
            stored = await asyncio.to_thread(self.cache.put, key, fresh)
        return self._answer(request, route, {**stored, "attempts": fresh["attempts"]}, cached=False)

    def _answer(self, request: Request, route: Route, found: Mapping[str, Any], cached: bool) -> Answer:
        data = None if request.schema is None else json_answers.parse(found["text"], request.schema)
        tokens = found["tokens_in"], found["tokens_out"]
        attempts = 0 if cached else found["attempts"]
        return Answer(found["text"], data, route.name, *tokens, route.price.cost(*tokens), cached, attempts)

    async def _fresh(self, request: Request, route: Route, counts: RoleCounts) -> dict[str, Any]:
        """Asks the server, and asks again with the reason while the schema refuses the answer."""
        client = self._client(route.server)
        messages = wire.place_images(request.messages, request.images, client.server.images)
        drawn = wire.sampling(route, request.temperature, request.seed, request.max_tokens)
        tokens_in = tokens_out = calls = 0
        for asked in range(route.reasks + 1):
            reply = await client.complete(wire.body(route, client.server, messages, request.schema, drawn), counts)
            tokens_in, tokens_out, calls = (
                tokens_in + reply.tokens_in,
                tokens_out + reply.tokens_out,
                calls + reply.calls,
            )
            counts.tokens_in += reply.tokens_in
            counts.tokens_out += reply.tokens_out
            counts.cost += route.price.cost(reply.tokens_in, reply.tokens_out)
            fault = _fault(reply, request)
            if fault is None:
                return {"text": reply.text, "tokens_in": tokens_in, "tokens_out": tokens_out, "attempts": calls}
            if asked < route.reasks:
                counts.reasked += 1
                messages = _asked_again(messages, reply.text, fault)
        raise ModelError(
            f"{route.name} gave no answer that its schema allows in {route.reasks + 1} tries: {fault}", "schema"
        )

    def _client(self, name: str) -> Client:
        if name not in self._clients:
            self._clients[name] = Client(name, self.routes.servers[name], self._share)
        return self._clients[name]


def _fault(reply: Reply, request: Request) -> str | None:
    """Why the schema refuses a reply, or None. Raises ModelError where asking again with a reason does not help."""
    if reply.finish == "length":
        raise ModelError(f"an answer was cut at max_tokens={request.max_tokens}: give the request more", "truncated")
    if request.schema is None:
        if not reply.text.strip():
            raise ModelError("the model answered with nothing: check its chat template and the prompt", "empty")
        return None
    try:
        json_answers.parse(reply.text, request.schema)
    except json_answers.SchemaMismatch as error:
        return str(error)
    return None


def _asked_again(messages: list[dict[str, Any]], text: str, fault: str) -> list[dict[str, Any]]:
    words = prompts.load("reask_json").render(motivo=fault)
    return [*messages, {"role": "assistant", "content": text or "(vazio)"}, {"role": "user", "content": words}]
