"""What datatrove runs: a phase is planned by one task, worked on by many, and a last one ends the run.

A job holds the pipeline's name and configuration alone and builds the pipeline where it runs, so that nothing but
plain values is pickled on its way to a worker or a Slurm job.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Iterator
from typing import Any

from datatrove.pipeline.base import PipelineStep
from loguru import logger

from data_prep.engine.finish import check_phase, finish, list_dropped, nothing_came_out
from data_prep.engine.folder import RunFolder
from data_prep.engine.model_access import open_models
from data_prep.engine.pulse import Pulse
from data_prep.engine.records import plan_barrier, plan_source
from data_prep.engine.steps import Phase, load_phases
from data_prep.engine.task import Task
from data_prep.models.reachable import silent_servers


def requeue_at_signal(*_: Any) -> None:
    """Puts this task of a Slurm array back into the queue and ends it. The number of the array alone, which
    SLURM_JOB_ID is in its first task, would put back all of them.
    """
    task = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    subprocess.run(["scontrol", "requeue", task], check=False)
    os._exit(15)  # the journal holds what is done; nothing else is to be saved


class Job(PipelineStep):
    """A part of a run. conf: the configuration as plain values. owner: as Pulse's. quiet: without datatrove's messages,
    20 lines a task; errors leave a traceback in run_dir/errors in any case.
    """

    type = "amalia-data"

    def __init__(self, name: str, conf: dict[str, Any], commit: str, owner: int = 0, quiet: bool = True) -> None:
        super().__init__()
        self.name, self.conf, self.commit, self.owner, self.quiet = name, conf, commit, owner, quiet
        self._hush()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._hush()

    def _hush(self) -> None:
        (logger.disable if self.quiet else logger.enable)("datatrove")

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """As datatrove calls it; yields nothing."""
        from omegaconf import OmegaConf

        conf = OmegaConf.create(self.conf)
        if "SLURM_ARRAY_TASK_ID" in os.environ and conf.executor.name == "slurm":
            signal.signal(signal.SIGUSR1, requeue_at_signal)
        try:
            module, phases = load_phases(conf)
            self.work(conf, module, phases, rank, world_size)
        except Exception:
            errors = RunFolder(conf).path / "errors"
            errors.mkdir(parents=True, exist_ok=True)
            stamp = time.strftime("%Y%m%d-%H%M%S")
            (errors / f"{stamp}-{self.name}-{rank:05d}.txt").write_text(traceback.format_exc())
            raise
        yield from ()

    def work(self, conf: Any, module: Any, phases: list[Phase], rank: int, tasks: int) -> None:
        """The job itself."""
        raise NotImplementedError


class Plan(Job):
    """How many records a phase has; at a barrier, which."""

    def __init__(self, index: int, *arguments: Any, **options: Any) -> None:
        super().__init__(f"plan-{index + 1}", *arguments, **options)
        self.index = index

    def work(self, conf: Any, module: Any, phases: list[Phase], rank: int, tasks: int) -> None:
        """Once: a plan that is there stays."""
        run, phase = RunFolder(conf), phases[self.index]
        folder = run.phase(phase)
        if folder.plan.is_file():
            return
        if not self.index:
            plan_source(phase, folder, conf)
            return
        before = phases[self.index - 1]
        if not check_phase(before, run.phase(before), conf.records_per_chunk).samples:
            list_dropped(run, phases[: self.index])
            raise nothing_came_out(run, phases[: self.index])
        plan_barrier(phase, folder, run.phase(before), conf.seed)


class Make(Job):
    """A task of a phase."""

    def __init__(self, index: int, *arguments: Any, **options: Any) -> None:
        super().__init__(f"make-{index + 1}", *arguments, **options)
        self.index = index

    def work(self, conf: Any, module: Any, phases: list[Phase], rank: int, tasks: int) -> None:
        """Its chunks. On a cluster the node looks for the servers: whoever submitted it may see another network."""
        pulse = Pulse(RunFolder(conf).phase(phases[self.index]), rank, self.owner)
        if conf.executor.name == "slurm" and conf.get("models"):
            pulse.notes += silent_servers(conf.models)
            for note in pulse.notes:
                logger.warning(note)

        async def make() -> None:
            await Task(conf, phases, self.index, self.commit, pulse).run(open_models(module, conf), rank, tasks)

        try:
            asyncio.run(make())
        except Exception as error:
            pulse.beat("failed", f"{type(error).__name__}: {error}")
            raise
        pulse.beat("done")


class Finish(Job):
    """Counts and shards."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__("finish", *arguments, **options)

    def work(self, conf: Any, module: Any, phases: list[Phase], rank: int, tasks: int) -> None:
        """Once: a run that is finished stays."""
        finish(conf, phases)
