"""A worker of datatrove's pool that is killed: the pool itself would wait for its result for ever."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nemo_amalia.utils.errors import DataError

WATCH_SECONDS = 0.5
AGAIN_SECONDS = 5.0  # the pool's own end can wait for ever for a lock that a killed worker, or a late one, holds


@contextmanager
def pool_watched() -> Iterator[None]:
    """Raises DataError in the main thread, whatever it waits for, soon after a pool's process has died of something
    else than its pool's own end. To be entered in the main thread.
    """
    stop, lost = threading.Event(), []
    thread = threading.Thread(target=_watch, args=(stop, lost, threading.get_ident()), daemon=True)
    before = signal.signal(signal.SIGUSR2, lambda *_: _tell(lost))  # a signal alone ends a wait for a lock
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGUSR2, before)


def _tell(lost: list[int]) -> None:
    remedy = "look at the machine's memory, then run the same command again, it goes on from here"
    raise DataError(f"worker process {lost[0]} was killed: {remedy}")


def _watch(stop: threading.Event, lost: list[int], main: int) -> None:
    import multiprocess

    seen: dict[int, Any] = {}
    ended: list[int] = []
    while not stop.wait(WATCH_SECONDS):
        children = {child.pid: child for child in multiprocess.active_children() if "Pool" in child.name}
        if ended and children:  # by a SIGTERM that was not the pool's: that ends all of them
            lost += ended
        gone = {pid: seen[pid].exitcode for pid in seen.keys() - children.keys()}
        lost += [pid for pid, code in gone.items() if code not in (0, -signal.SIGTERM)]
        ended = [pid for pid, code in gone.items() if code == -signal.SIGTERM]
        if lost:
            while not stop.is_set():
                signal.pthread_kill(main, signal.SIGUSR2)
                stop.wait(AGAIN_SECONDS)
            return
        seen = children
