"""Pipelines of a test run in this process, without datatrove and without writing shards."""

import asyncio
import contextlib

from omegaconf import OmegaConf

from data_prep.engine.finish import check_phase
from data_prep.engine.folder import RunFolder
from data_prep.engine.journal import SealedJournal
from data_prep.engine.pulse import Pulse
from data_prep.engine.records import plan_barrier, plan_source
from data_prep.engine.steps import phases_of
from data_prep.engine.task import Task


def settings(folder, **more):
    base = {"name": "t", "seed": 1, "limit": 0, "run_dir": str(folder / "run"), "out": str(folder / "out")}
    base |= {"records_per_chunk": 4, "samples_per_shard": 100, "concurrency": 3, "max_model_errors": 0.25}
    return OmegaConf.create(base | more)


def source(number=10, **fields):
    """A source of `number` records."""

    def records():
        for i in range(number):
            yield {"number": i, "source": "here", "licence": "CC0-1.0", **fields}

    return records


def turns(sample, run):
    """The last step of a test's pipeline: any sample becomes a conversation about its number."""
    content = [{"role": "user", "content": "Quanto?"}, {"role": "assistant", "content": str(sample.get("number"))}]
    return sample | {"messages": content}


def make(conf, parts, models=None, tasks=1, only=None, finish=True):
    """Plans and works off every phase; gives (ledgers, items of the last phase). only: tasks that run at all."""
    phases, folder = phases_of(parts), RunFolder(conf)
    ledgers = []
    for index, phase in enumerate(phases):
        place = folder.phase(phase)
        if not place.plan.is_file():
            if index:
                plan_barrier(phase, place, folder.phase(phases[index - 1]), conf.seed)
            else:
                plan_source(phase, place, conf)
        for rank in range(tasks) if only is None else only:
            asyncio.run(Task(conf, phases, index, "c0ffee", Pulse(place, rank)).run(models, rank, tasks))
        if finish:
            ledgers.append(check_phase(phase, place, conf.records_per_chunk))
    return ledgers, items(conf, phases[-1]) if finish else None


def items(conf, phase):
    """What a phase has stored, in order."""
    found = []
    place = RunFolder(conf).phase(phase)
    for chunk in place.sealed():
        with contextlib.closing(SealedJournal(place.journal(chunk))) as journal:
            for _, _, each in journal.records():
                found += each
    return found
