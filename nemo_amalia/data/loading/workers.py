"""Worker processes that died or hang: which one, what it was doing, and what to do about it."""

from __future__ import annotations

import gc
import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nemo_amalia.data.faults.board import FaultBoard
from nemo_amalia.data.loading import energon_internals as internals
from nemo_amalia.data.samples import BadSampleError
from nemo_amalia.utils.process import end_with_parent

GONE_SECONDS = 5
TIMED_OUT = "DataLoader timed out"  # torch's words (torch/utils/data/dataloader.py, _get_data)


class WorkerLostError(RuntimeError):
    """A worker process that died or hangs, named in one line."""


@contextmanager
def ready_to_fork() -> Iterator[None]:
    """Workers that start in here end with this process, and collecting garbage do not look through what it holds.

    Energon collects in each new worker, for seconds where Megatron is loaded, and would copy every page it looks at.
    A worker whose rank is gone may wait for ever otherwise: until somebody reads what it has sent.
    """
    global _starting
    gc.freeze()
    _starting = True
    try:
        yield
    finally:
        _starting = False
        gc.unfreeze()


_starting = False
os.register_at_fork(after_in_child=lambda: end_with_parent() if _starting else None)


def in_one_line(error: Exception, faults: FaultBoard, lost: Callable[[bool], str | None]) -> Exception:
    """What a loader raises for `error`: the sample that a worker refused, the worker that is lost, or `error` itself.

    lost: called with whether torch's wait timed out; the line on the worker, or None.
    """
    refused = faults.failure()
    if refused is not None:
        return BadSampleError(refused)
    # Its end of a connection is closed before the process is seen to have ended.
    until = time.monotonic() + (GONE_SECONDS if isinstance(error, EOFError | OSError) else 0)
    while True:
        try:
            line = lost(str(error).startswith(TIMED_OUT))
            if line is not None or time.monotonic() >= until:
                return error if line is None else WorkerLostError(line)
            time.sleep(0.02)
        except RuntimeError:  # torch has just noticed, too, and raised in here; it does so once
            continue


def lost_worker(iterator: Any, faults: FaultBoard, stuck: int | None = None, seconds: float = 0) -> str | None:
    """One line on the first dead worker, else on the one that is stuck; None when none is.

    iterator: torch's, with worker processes, or another or None where there are none. stuck: number of the worker that
    gave nothing for `seconds`; it is ended here, for nobody waits for it any more and it would outlive the run.
    """
    if not internals.has_workers(iterator):
        return None
    workers = internals.processes(iterator)
    for number, process in enumerate(workers):
        if process.exitcode is not None:
            internals.stop_watching(iterator)  # named now; torch would raise once more, at the end of another process
            return (
                f"data worker {number} (pid {process.pid}) {_end(process.exitcode)} while {_doing(faults, number)}: if "
                "the machine's memory ran out, lower data.num_workers, data.packing_buffer_size or "
                "data.shuffle_buffer_size; else look at that sample. The same command resumes from the last checkpoint"
            )
    if stuck is None:
        return None
    process = workers[stuck]
    internals.stop_watching(iterator)
    process.kill()
    return (
        f"data worker {stuck} (pid {process.pid}) gave nothing for {seconds:g} s while {_doing(faults, stuck)}, and "
        "was ended: look at that sample and at the disk, or raise data.worker_timeout. The same command resumes from "
        "the last checkpoint"
    )


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed by signal {-code}"


def _doing(faults: FaultBoard, number: int) -> str:
    return faults.doing(number) or "it started, before its first sample"


class PatientQueue:
    """A worker's queue of answers whose `get` ends: Energon asks every worker for its position at a checkpoint, and
    waits without end for one that hangs.

    late: called with this queue's number when nothing came for `seconds`; returns the error to raise.
    """

    def __init__(self, answers: Any, number: int, seconds: float, late: Callable[[int], Exception]) -> None:
        self._answers, self._number, self._seconds, self._late = answers, number, seconds, late

    def get(self) -> Any:
        """The next answer."""
        try:
            return self._answers.get(timeout=self._seconds)
        except queue.Empty as error:
            raise self._late(self._number) from error
