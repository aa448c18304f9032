"""Coroutines that run beside each other and fail together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Several:
    """Coroutines at once: the first error of one ends the others and is raised as it is (a TaskGroup would wrap it)."""

    async def __aenter__(self) -> Several:
        self._tasks: set[asyncio.Task] = set()
        self._failed: asyncio.Future = asyncio.get_running_loop().create_future()
        return self

    @property
    def running(self) -> int:
        """How many have not ended."""
        return len(self._tasks)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Begins one."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() and not self._failed.done():
            self._failed.set_exception(task.exception())

    async def one_ends(self) -> None:
        """Until fewer run. Raises what one of them raised."""
        await asyncio.wait([*self._tasks, self._failed], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)  # its callback
        self._raise()

    async def until(self, what: asyncio.Event | Coroutine[Any, Any, Any]) -> None:
        """Until the event is set, or the coroutine ends. Raises what one of them raised."""
        waiting = asyncio.ensure_future(what.wait() if isinstance(what, asyncio.Event) else what)
        await asyncio.wait([waiting, self._failed], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
        self._raise()

    def _raise(self) -> None:
        if self._failed.done():
            raise self._failed.exception()

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            while kind is None and self._tasks:
                await self.one_ends()
            if kind is None:
                self._raise()
        finally:
            left = list(self._tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            if self._failed.done():
                self._failed.exception()  # seen: asyncio would complain
