"""A task of a stage: every so many-th chunk of its records, one after the other, each record once."""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.common.engine.flow import Done, Flow, Item, RecordFailedError
from data_prep.common.engine.folder import RunFolder, StageFolder, write_json
from data_prep.common.engine.journal import Journal
from data_prep.common.engine.ledger import Ledger
from data_prep.common.engine.model_access import Models
from data_prep.common.engine.records import Digest, barrier_records, source_records
from data_prep.common.engine.steps import Stage

PULSE_SECONDS = 1.0


@dataclass
class Pulse:
    """Says in a file, every second, what a task does, and ends a task whose owner is gone.

    owner: process whose death ends this one (0: none): nobody would see this task's errors, and the next run would wait
    for its chunk.
    """

    folder: StageFolder
    task: int
    owner: int = 0
    chunk: int = -1
    records: int = 0
    ledger: Ledger | None = None
    _written: float = 0.0

    def __post_init__(self) -> None:
        self._started = time.time()

    def beat(self, state: str = "running", error: str = "") -> None:
        """Writes at most once a second, and at every change of state."""
        now = time.time()
        if state == "running" and now - self._written < PULSE_SECONDS:
            return
        if self.owner and os.getppid() != self.owner and not _alive(self.owner):
            os._exit(1)
        self._written = now
        content = {"task": self.task, "pid": os.getpid(), "host": socket.gethostname(), "state": state, "error": error}
        content |= {"started": self._started, "updated": now, "chunk": self.chunk, "records": self.records}
        content["ledger"] = self.ledger.to_json() if self.ledger else None
        write_json(self.folder.live(self.task), content)


class Task:
    """Does its chunks of a stage. seed, concurrency, records_per_chunk, max_model_errors: of `conf`."""

    def __init__(self, conf: Any, stages: list[Stage], index: int, commit: str, pulse: Pulse) -> None:
        self._conf, self._stages, self._index, self._commit, self._pulse = conf, stages, index, commit, pulse
        self._stage = stages[index]
        run = RunFolder(conf)
        self._folder = run.stage(self._stage)
        self._before = run.stage(stages[index - 1]) if index else None

    async def run(self, models: Models | None, rank: int, tasks: int) -> None:
        """Chunks rank, rank + tasks, ... Raises as Flow.run does, and ValueError on records that are not those of the
        plan, on a journal in use, and on too many records that a model gave up on.
        """
        plan = self._folder.read_plan()
        conf, size = self._conf, self._conf.records_per_chunk
        flow = Flow(self._stage, conf.seed, models, conf.concurrency, last=self._index == len(self._stages) - 1)
        beat = asyncio.create_task(self._beat())
        try:
            records = enumerate(self._records())
            for chunk in range(-(-plan["records"] // size)):
                mine = itertools.islice(records, min(size, plan["records"] - chunk * size))
                if chunk % tasks == rank and not self._folder.summary(chunk).is_file():
                    digest = plan["digests"][chunk] if plan["digests"] else None
                    await self._chunk(flow, chunk, mine, digest)
                else:
                    for _ in mine:
                        pass
        finally:
            beat.cancel()
            if hasattr(models, "aclose"):
                await models.aclose()

    def _records(self) -> Iterator[Any]:
        if self._before is None:
            return source_records(self._stage, self._conf.limit, self._conf.name)
        return barrier_records(self._folder, self._before)

    async def _chunk(self, flow: Flow, chunk: int, records: Iterator[tuple[int, Any]], digest: str | None) -> None:
        self._pulse.chunk, self._pulse.ledger = chunk, Ledger.of([step.name for step in self._stage.steps])
        with Journal(self._folder.journal(chunk)) as journal:
            done = journal.done()
            for stored in done.values():
                self._pulse.ledger.add(Ledger.from_json(stored["ledger"]))
            seen = Digest() if digest else None
            await self._work(flow, journal, self._left(records, done, seen))
            if seen is not None and str(seen) != digest:
                raise ValueError(
                    f"the source gives other records than when the run began (chunk {chunk}): "
                    "give it back what it read, or choose another run_dir"
                )
            journal.seal()
        write_json(self._folder.summary(chunk), {"ledger": self._pulse.ledger.to_json()})
        self._pulse.beat("sealed")

    def _left(
        self, records: Iterator[tuple[int, Any]], done: dict[int, Any], seen: Digest | None
    ) -> Iterator[tuple[int, Item]]:
        """The records of a chunk that are not in its journal yet."""
        for number, record in records:
            item = None
            if seen is not None:
                seen.add((item := _loaded(record)).sample)
            if number not in done:
                yield number, item or _loaded(record)

    async def _work(self, flow: Flow, journal: Journal, left: Iterator[tuple[int, Item]]) -> None:
        """As many records at once as there are slots; those on which a model gave up once more at the end."""
        failed: list[tuple[int, Item]] = []
        several = any(step.is_async for step in self._stage.steps)  # others have nothing to wait for
        limit = max(1, self._conf.max_model_errors * self._conf.records_per_chunk)

        async def worker() -> None:
            for number, item in left:
                kept = copy.deepcopy(item) if several else item  # a second try begins with the sample as it was
                try:
                    self._store(journal, number, await flow.run(item))
                except RecordFailedError as error:
                    failed.append((number, kept))
                    if len(failed) > limit:
                        raise ValueError(
                            f"models gave up on {len(failed)} records of one chunk, more than max_model_errors "
                            f"{self._conf.max_model_errors:g} allows (the last: {error}): look at the servers, then "
                            "run the same command again, it goes on from here"
                        ) from error

        await _all(worker() for _ in range(self._conf.concurrency if several else 1))
        for number, item in failed:
            self._store(journal, number, await flow.run(item, give_up=True))

    def _store(self, journal: Journal, number: int, done: Done) -> None:
        content = {"ledger": done.ledger.to_json(), "drops": done.drops, "commit": self._commit}
        try:
            journal.add(number, content, [item.to_json() for item in done.items])
        except TypeError as error:
            last = self._stage.steps[-1].name if self._stage.steps else "the source"
            keys = ", ".join(item.sample["key"] for item in done.items)
            raise ValueError(
                f"sample {keys} after {last}: {error}; samples hold plain JSON values and bytes"
            ) from error
        except sqlite3.OperationalError as error:
            remedy = "make room there, then run the same command again, it goes on from here"
            raise ValueError(f"cannot write to {journal.path} ({error}): {remedy}") from error
        self._pulse.ledger.add(done.ledger)
        self._pulse.records += 1
        self._pulse.beat()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            self._pulse.beat()


async def _all(coroutines: Iterator[Any]) -> None:
    """All of them; the first error ends the others. (A TaskGroup would wrap it in a group.)"""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        with suppress(BaseException):
            await asyncio.gather(*tasks, return_exceptions=True)


def _loaded(record: Any) -> Item:
    return record() if callable(record) else record


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # another user's, or no /proc
        return True
