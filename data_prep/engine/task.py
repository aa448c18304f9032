"""A task of a phase: every so many-th chunk of its records, each record once."""

from __future__ import annotations

import asyncio
import copy
import itertools
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_prep.engine.flow import Done, Flow, Item, RecordFailedError
from data_prep.engine.folder import RunFolder
from data_prep.engine.journal import Journal
from data_prep.engine.ledger import Ledger
from data_prep.engine.model_access import Models, Retries
from data_prep.engine.pulse import PULSE_SECONDS, Pulse
from data_prep.engine.records import Digest, barrier_records, source_records
from data_prep.engine.several import Several
from data_prep.engine.steps import Phase
from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.files import write_json

OPEN_CHUNKS = 2  # the next one begins while the slowest answers of one are waited for


@dataclass
class Chunk:
    """Some records in a row, and what is done of them. records: (number, item or a function that reads it)."""

    number: int
    records: list[tuple[int, Any]]
    journal: Journal
    ledger: Ledger


class Task:
    """Does its chunks of a phase. seed, concurrency, records_per_chunk, max_model_errors: of `conf`."""

    def __init__(self, conf: Any, phases: list[Phase], index: int, commit: str, pulse: Pulse) -> None:
        self._conf, self._phases, self._index, self._commit, self._pulse = conf, phases, index, commit, pulse
        self._phase = phases[index]
        run = RunFolder(conf)
        self._folder = run.phase(self._phase)
        self._before = run.phase(phases[index - 1]) if index else None
        self._waits = any(step.is_async for step in self._phase.steps)  # others have nothing to wait for
        self._retries = Retries(None)
        self._slots = asyncio.Semaphore(conf.concurrency if self._waits else 1)

    async def run(self, models: Models | None, rank: int, tasks: int) -> None:
        """Chunks rank, rank + tasks, ... Raises as Flow.run does, and ValueError on records that are not those of the
        plan, on a journal in use or that cannot be written, and on too many records that a model gave up on.
        """
        last = self._index == len(self._phases) - 1
        flow = Flow(self._phase, self._conf.seed, models, self._conf.concurrency, last)
        self._retries = Retries(models)
        self._pulse.retried = self._retries.under_way
        self._pulse.pauses = getattr(models, "pauses", dict)
        beat = asyncio.create_task(self._beat())
        try:
            async with Several() as several:
                for number, records, digest in self._chunks(rank, tasks):
                    while several.running >= OPEN_CHUNKS:
                        await several.one_ends()
                    handed_out = asyncio.Event()
                    several.start(self._chunk(flow, number, records, digest, handed_out))
                    await several.until(handed_out)
        finally:
            beat.cancel()
            if hasattr(models, "aclose"):
                await models.aclose()

    def _chunks(self, rank: int, tasks: int) -> Iterator[tuple[int, list[tuple[int, Any]], str | None]]:
        """(number, records, digest) of this task's chunks that are not done. The source is read once, to its end."""
        plan, size = self._folder.read_plan(), self._conf.records_per_chunk
        if self._before is None:
            records = enumerate(source_records(self._phase, self._conf.limit, self._conf.name))
        else:
            records = enumerate(barrier_records(self._folder, self._before))
        for chunk in range(-(-plan["records"] // size)):
            mine = itertools.islice(records, min(size, plan["records"] - chunk * size))
            if chunk % tasks == rank and not self._folder.summary(chunk).is_file():
                yield chunk, list(mine), plan["digests"][chunk] if plan["digests"] else None
            else:
                for _ in mine:
                    pass

    async def _chunk(
        self, flow: Flow, number: int, records: list[tuple[int, Any]], digest: str | None, handed_out: asyncio.Event
    ) -> None:
        if digest is not None:
            _check_digest(number, records, digest)
        with Journal(self._folder.journal(number)) as journal:
            chunk = Chunk(number, records, journal, Ledger.of([step.name for step in self._phase.steps]))
            self._pulse.open[number] = chunk.ledger
            await self._work(flow, chunk, handed_out)
            journal.seal()
        write_json(self._folder.summary(number), {"ledger": chunk.ledger.to_json()})
        del self._pulse.open[number]

    async def _work(self, flow: Flow, chunk: Chunk, handed_out: asyncio.Event) -> None:
        """As many records at once as there are slots; those on which a model gave up once more at the end."""
        done = chunk.journal.done()
        for stored in done.values():
            chunk.ledger.add(Ledger.from_json(stored["ledger"]))
        failed: list[tuple[int, Any]] = []
        async with Several() as several:
            for number, record in chunk.records:
                if number not in done:
                    await several.until(self._slots.acquire())
                    several.start(self._record(flow, chunk, number, record, failed))
            handed_out.set()
        for number, record in sorted(failed, key=lambda one: one[0]):
            self._store(chunk, number, await flow.run(_loaded(record), give_up=True))

    async def _record(self, flow: Flow, chunk: Chunk, number: int, record: Any, failed: list[tuple[int, Any]]) -> None:
        try:
            item = _loaded(record)  # a second try begins with the sample as it was
            self._store(chunk, number, await flow.run(copy.deepcopy(item) if self._waits else item))
        except RecordFailedError as error:
            failed.append((number, record))
            share = self._conf.max_model_errors
            if len(failed) > max(1, share * self._conf.records_per_chunk):
                raise DataError(
                    f"models gave up on {len(failed)} records of one chunk, max_model_errors={share:g} allows fewer "
                    f"(the last: {error}): look at the servers, then run the same command again, it goes on"
                ) from error
        finally:
            self._slots.release()

    def _store(self, chunk: Chunk, number: int, done: Done) -> None:
        done.ledger.retried = self._retries.take()
        content = {"ledger": done.ledger.to_json(), "drops": done.drops, "commit": self._commit}
        try:
            chunk.journal.add(number, content, [item.to_json() for item in done.items])
        except TypeError as error:
            last = self._phase.steps[-1].name if self._phase.steps else "the source"
            keys = ", ".join(item.sample["key"] for item in done.items)
            remedy = "samples hold plain JSON values and bytes"
            raise DataError(f"sample {keys} after {last}: {error}; {remedy}") from error
        except sqlite3.OperationalError as error:
            remedy = "make room there, then run the same command again, it goes on from here"
            raise DataError(f"cannot write to {chunk.journal.path} ({error}): {remedy}") from error
        chunk.ledger.add(done.ledger)
        self._pulse.records += 1
        self._pulse.beat()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            self._pulse.beat()


def _check_digest(chunk: int, records: list[tuple[int, Any]], digest: str) -> None:
    seen = Digest()
    for _, record in records:
        seen.add(record.sample)
    if str(seen) != digest:
        raise DataError(
            f"the source gives other records than when the run began (chunk {chunk}): "
            "give it back what it read, or choose another run_dir"
        )


def _loaded(record: Any) -> Item:
    return record() if callable(record) else record
