"""Runs the jobs of a pipeline with datatrove: here, or as Slurm arrays that depend on each other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from omegaconf import OmegaConf

from data_prep.engine.descendants import ending_with_this_process
from data_prep.engine.folder import RunFolder
from data_prep.engine.jobs import Finish, Job, Make, Plan
from data_prep.engine.pool import pool_watched
from data_prep.engine.progress import Progress
from data_prep.engine.steps import Phase
from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.files import read_json, write_json

# A task that a signal ended (the node's memory, an administrator's kill) goes back to the queue; one that ended with an
# error of its own does not: it would end the same way.
REQUEUE = """trap 'code=$?; if [ $code -gt 128 ] && [ ${{SLURM_RESTART_COUNT:-0}} -lt {times} ]; then \
scontrol requeue ${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}; fi; exit $code' EXIT"""


def jobs_of(conf: Any, phases: list[Phase], commit: str, owner: int, quiet: bool) -> list[tuple[Job, int]]:
    """(job, number of tasks), in order."""
    values = OmegaConf.to_container(conf, resolve=True)
    found: list[tuple[Job, int]] = []
    for index in range(len(phases)):
        found.append((Plan(index, values, commit, owner, quiet), 1))
        found.append((Make(index, values, commit, owner, quiet), conf.executor.tasks or conf.executor.workers))
    return [*found, (Finish(values, commit, owner, quiet), 1)]


def run_local(conf: Any, phases: list[Phase], commit: str, say: Callable[[str], None]) -> None:
    """Every job on this machine, conf.executor.workers tasks at a time. Raises what a task raised, and ValueError
    where a worker was killed.
    """
    folder = RunFolder(conf)
    with ending_with_this_process(), Progress(conf, phases, say) as progress:
        for job, tasks in jobs_of(conf, phases, commit, os.getpid(), quiet=True):
            executor = LocalPipelineExecutor(
                [job],
                tasks=tasks,
                workers=min(tasks, conf.executor.workers),
                logging_dir=_logs(folder, job, tasks),
                skip_completed=False,  # our own files say what is done, whatever the number of tasks
            )
            if isinstance(job, Finish):
                progress.stop()
                say("checking all counts and writing the shards")
            with pool_watched() if executor.workers > 1 else nullcontext():
                executor.run()


def submit_slurm(conf: Any, phases: list[Phase], commit: str, say: Callable[[str], None]) -> list[str]:
    """Submits all jobs, each depending on the one before; gives the job ids. Raises DataError where jobs of this run
    have not ended, and where Slurm refuses one.
    """
    folder, settings = RunFolder(conf), conf.executor
    jobs_file = folder.path / "slurm_jobs.json"
    if jobs_file.is_file() and (left := _unfinished(jobs_file)):
        raise DataError(f"jobs {', '.join(left)} of this run have not ended: wait for them, or `scancel` them first")
    last = None
    executors = []
    for job, tasks in jobs_of(conf, phases, commit, 0, quiet=False):
        last = SlurmPipelineExecutor(
            [job],
            tasks=tasks,
            workers=settings.workers if tasks > 1 else -1,
            time=settings.time,
            partition=settings.partition,
            cpus_per_task=settings.cpus_per_task,
            mem_per_cpu_gb=settings.mem_per_cpu_gb,
            qos=settings.qos,
            job_name=f"{conf.name}-{job.name}",
            env_command=_environment(settings),
            sbatch_args=_sbatch(settings),
            logging_dir=_logs(folder, job, tasks),
            depends=last,
            skip_completed=False,
            requeue_signals=None,  # Job has a handler: datatrove's would put the whole array back, not the task
        )
        executors.append(last)
    try:
        last.run()
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        raise DataError(f"Slurm did not take the job ({error}): look at executor.partition, time and sbatch") from error
    ids = [str(executor.job_id) for executor in executors]
    write_json(jobs_file, {"jobs": ids})
    say(f"{len(ids)} jobs submitted, each after the one before: {', '.join(ids)}")
    return ids


def _unfinished(jobs_file: Path) -> list[str]:

    jobs = read_json(jobs_file)["jobs"]
    words = ["squeue", "-h", "-o", "%F", "-j", ",".join(jobs)]
    seen = subprocess.run(
        words, capture_output=True, text=True
    ).stdout.split()  # an error: Slurm has forgotten them all
    return sorted(set(seen) & set(jobs), key=int)


def _environment(settings: Any) -> str:
    """Lines of a job's script before its command: the programs of this Python, its path, and `executor.setup`."""
    path = os.pathsep.join(part for part in sys.path if part)
    lines = [
        REQUEUE.format(times=settings.requeues),
        f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={path}",
        settings.setup or "",
    ]
    return "\n        ".join(line for line in lines if line)


def _sbatch(settings: Any) -> dict[str, str]:
    """signal: Slurm sends it before the time limit (jobs.requeue_at_signal). A requeued task appends to its log."""
    options = {"kill-on-invalid-dep": "yes", "open-mode": "append"}
    if settings.signal_seconds:
        options["signal"] = f"USR1@{settings.signal_seconds}"
    if settings.account:
        options["account"] = settings.account
    return options | OmegaConf.to_container(settings.sbatch)


def _logs(folder: RunFolder, job: Job, tasks: int) -> str:
    return str(folder.path / "datatrove" / f"{job.name}-{tasks}-{time.strftime('%Y%m%d-%H%M%S')}")
