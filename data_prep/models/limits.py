"""Rate limits of one server: requests and tokens a minute, and the pause that a 429 asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

BURST_SECONDS = 10  # what a limit a minute allows at once: a sixth of it


class Bucket:
    """A token bucket: on average `per_minute`, in bursts of at most ten seconds' worth. First come, first served.

    per_minute: 0 is no limit. clock, sleep: seconds; tests give their own.
    """

    def __init__(
        self,
        per_minute: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.rate = per_minute / 60
        self.capacity = max(1.0, self.rate * BURST_SECONDS)
        self._level, self._clock, self._sleep = self.capacity, clock, sleep
        self._seen, self._lock = clock(), asyncio.Lock()

    async def take(self, amount: float) -> None:
        """Waits until `amount` may go. More than a burst goes when the bucket is full, and is paid off afterwards."""
        if not self.rate:
            return
        async with self._lock:
            while (lacking := min(amount, self.capacity) - self._refilled()) > 1e-9:
                await self._sleep(lacking / self.rate)
            self._level -= amount

    def correct(self, amount: float) -> None:
        """What a call took beyond its estimate (negative: what it did not take)."""
        self._level = min(self.capacity, self._level - amount)

    def _refilled(self) -> float:
        now = self._clock()
        self._level = min(self.capacity, self._level + (now - self._seen) * self.rate)
        self._seen = now
        return self._level


class Limiter:
    """Concurrency, requests a minute, tokens a minute of one server, and its pauses.

    share: the part of the limits that this process has (1 / workers).
    """

    def __init__(self, concurrency: int, requests: float = 0, tokens: float = 0, share: float = 1.0) -> None:
        self.slots = asyncio.Semaphore(max(1, round(concurrency * share)))
        self.requests, self.tokens = Bucket(requests * share), Bucket(tokens * share)
        self._open_at = 0.0

    async def admit(self, tokens: float) -> None:
        """Waits until a call of about `tokens` may go out."""
        while wait := self.paused:
            await asyncio.sleep(wait)
        await self.requests.take(1)
        await self.tokens.take(tokens)

    @property
    def paused(self) -> float:
        """Seconds until the next call may begin, 0 where no pause is on."""
        return max(0.0, self._open_at - time.monotonic())

    def pause(self, seconds: float) -> None:
        """No call begins for so long: the server said so, and every caller of it waits, not only the one that heard."""
        self._open_at = max(self._open_at, time.monotonic() + seconds)
