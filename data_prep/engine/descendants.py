"""Every process that a run starts ends with the one that started it, kill -9 included.

datatrove's local executor starts a manager (a fork of this process) and, for several workers, a fork server whose
forks the workers are. Of these a manager would outlive a kill for ever, and a worker that waits for its next task may.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nemo_amalia.utils.process import end_with_parent

FORK_SERVER = "data_prep.engine.fork_server"  # what the fork server imports before its first fork


class _Starter:
    def __init__(self) -> None:
        self.pid = os.getpid()


@contextmanager
def ending_with_this_process() -> Iterator[None]:
    """For what multiprocess starts meanwhile. To be entered in the main thread: a process ends with the *thread* that
    started it.
    """
    import multiprocess

    starter = watch_forks()
    multiprocess.set_forkserver_preload(["__main__", FORK_SERVER])
    yield
    del starter


def watch_forks() -> _Starter:
    """Multiprocess's forks of this process end with it, as long as what this gives is kept."""
    from multiprocess.util import register_after_fork

    starter = _Starter()
    register_after_fork(starter, _in_a_fork)
    return starter


def _in_a_fork(starter: _Starter) -> None:
    end_with_parent()
    if os.getppid() != starter.pid:  # it ended before this process could ask for the signal
        os._exit(1)
    starter.pid = os.getpid()  # of forks of this one
