"""One OpenAI-compatible server: POST /chat/completions, tried again with backoff until it answers.

Tried again: 408, 409, 425, 429 (with Retry-After, for all callers), 5xx, timeouts, resets, refused connections, and
bodies that are not a completion. Any other status is the request's fault and ends at once.
"""

from __future__ import annotations

import asyncio
import email.utils
import io
import json
import random
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from data_prep.models.counters import RoleCounts
from data_prep.models.limits import Limiter
from data_prep.models.routes import Server
from data_prep.models.wire import encode, estimate_tokens

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
LONGEST_PAUSE = 600  # seconds; a Retry-After beyond it is a mistake or a quota that no run should wait for


class ModelError(ValueError):
    """No usable answer. reason: refused, gave_up, schema, truncated or empty; a pipeline drops by it."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class _TryAgain(Exception):
    def __init__(self, cause: str, detail: str, after: float | None = None) -> None:
        super().__init__(detail)
        self.cause, self.after = cause, after


@dataclass(frozen=True, slots=True)
class Reply:
    """A completion: its text, why it ended ("stop", "length"), the server's token counts, and the calls it took."""

    text: str
    finish: str
    tokens_in: int
    tokens_out: int
    calls: int


class Client:
    """Calls to one server within its limits. share: the part of the limits that this process has."""

    def __init__(self, name: str, server: Server, share: float = 1.0) -> None:
        self.name, self.server = name, server
        self.limiter = Limiter(server.concurrency, server.requests_per_minute, server.tokens_per_minute, share)
        self._url = f"{server.url.rstrip('/')}/chat/completions"
        headers = {"Content-Type": "application/json"}
        if server.key():
            headers["Authorization"] = f"Bearer {server.key()}"
        # Not httpx: its pool asks every connection whether it is idle, several times a call.
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=server.timeout, sock_connect=min(10.0, server.timeout)),
            # uvicorn, under most servers, closes after 5 s: a connection that it is about to close must not be used.
            connector=aiohttp.TCPConnector(limit=server.concurrency, keepalive_timeout=4),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=server.proxy,
        )

    async def complete(self, body: dict[str, Any], counts: RoleCounts) -> Reply:
        """The server's completion. Raises ModelError: refused (the server will never take it), gave_up (retries)."""
        estimate = estimate_tokens(body["messages"], body.get("max_tokens", 0))
        data = encode(body)
        for attempt in range(1, self.server.retries + 2):
            try:
                text, finish, tokens_in, tokens_out = await self._once(data, counts, estimate)
                return Reply(text, finish, tokens_in, tokens_out, attempt)
            except _TryAgain as failure:
                last = failure
            if attempt <= self.server.retries:
                counts.retried[last.cause] += 1
                await asyncio.sleep(self._wait(attempt) + (last.after or 0))
        raise ModelError(
            f"server {self.name} ({self.server.url}) gave no answer in {self.server.retries + 1} calls; the last one: "
            f"{last}. Is it up, and is the model loaded?",
            "gave_up",
        )

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.close()

    def _wait(self, attempt: int) -> float:
        """Seconds before the next call: doubled each time, the upper half random so that callers do not march."""
        full = min(self.server.backoff * 2 ** (attempt - 1), self.server.backoff_max)
        return random.uniform(full / 2, full)

    async def _once(self, data: bytes, counts: RoleCounts, estimate: int) -> tuple[str, str, int, int]:
        async with self.limiter.slots:
            await self.limiter.admit(estimate)  # inside: who waited for a slot hears of a pause that began meanwhile
            counts.calls += 1
            began = time.monotonic()
            used = 0
            try:
                # A stream: aiohttp warns of bytes beyond 1 MB, which a few images are.
                async with self._http.post(self._url, data=io.BytesIO(data), allow_redirects=False) as response:
                    completion = self._read(response, await response.read())
                used = completion[2] + completion[3]
                return completion
            except TimeoutError as error:
                raise _TryAgain("timeout", f"no answer in {self.server.timeout:g} s") from error
            except aiohttp.InvalidURL as error:
                raise ModelError(f"server {self.name}: {self._url} is no address: mend its url", "refused") from error
            except (aiohttp.ClientError, OSError) as error:
                cause = "refused" if isinstance(error, aiohttp.ClientConnectorError) else "reset"
                raise _TryAgain(cause, f"{type(error).__name__} {error}".strip()) from error
            finally:
                counts.seconds += time.monotonic() - began
                self.limiter.tokens.correct(used - estimate)

    def _read(self, response: aiohttp.ClientResponse, body: bytes) -> tuple[str, str, int, int]:
        if response.status in AGAIN or response.status >= 500:
            after = _retry_after(response.headers.get("retry-after"))
            if after is not None:
                self.limiter.pause(after)
            raise _TryAgain(str(response.status), f"{response.status} {_short(body)}", after)
        if response.status != 200:
            raise ModelError(
                f"server {self.name} refused a request ({response.status}: {_short(body)}): "
                "check the model's name and settings in conf/data_prep/models/",
                "refused",
            )
        try:
            data = json.loads(body)
            choice, usage = data["choices"][0], data.get("usage") or {}
            text = choice["message"].get("content") or ""
            tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
            if not isinstance(text, str):
                raise TypeError(f"content is a {type(text).__name__}")
            return text, str(choice.get("finish_reason") or "stop"), *tokens
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise _TryAgain("malformed", f"200 with a body that is no completion: {_short(body)}") from error


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header (a number or a date), or None."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), LONGEST_PAUSE) if seconds == seconds else None


def _short(body: bytes) -> str:
    return " ".join(body.decode(errors="replace").split())[:200] or "(empty body)"
