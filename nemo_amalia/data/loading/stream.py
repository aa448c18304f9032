"""What the two streams of micro-batches share: iterating, naming a worker that is lost, and resuming."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, Self

from nemo_amalia.data.faults.board import FaultBoard
from nemo_amalia.data.loading import energon_internals as internals
from nemo_amalia.data.loading.position import check_version, differences
from nemo_amalia.data.loading.workers import in_one_line, lost_worker, ready_to_fork
from nemo_amalia.data.samples import PackedBatch
from nemo_amalia.utils.errors import DataError


class Stream(ABC):
    """Iterates PackedBatch for one data-parallel rank; `state` and `restore` are exact. One iteration in its life."""

    #: marks a state of this kind of stream
    VERSION: str

    def __init__(self, faults: FaultBoard, worker_timeout: float) -> None:
        internals.check_installed("torch")
        self.faults, self.worker_timeout = faults, worker_timeout
        self._items: Iterator[Any] | None = None

    @abstractmethod
    def _start(self) -> Iterator[Any]:
        """What the workers give, each item for `_batch`."""

    @abstractmethod
    def _worker_iterator(self) -> Any | None:
        """Torch's iterator with the worker processes; None, or another iterator, where there are none."""

    @abstractmethod
    def _batch(self, item: Any) -> PackedBatch | None:
        """A micro-batch of an item; None where nothing is left of it."""

    @abstractmethod
    def _identity(self) -> dict[str, Any]:
        """What a state depends on, by name: a state with other values means nothing here."""

    @abstractmethod
    def _saved_identity(self, state: dict[str, Any]) -> dict[str, Any]:
        """`_identity` of the stream that a state comes from."""

    @abstractmethod
    def _resume(self, state: dict[str, Any]) -> None:
        """Begin where a state that fits was taken."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the position after the last batch given out. Raises WorkerLostError when a worker does not answer."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> PackedBatch:
        """Return the next micro-batch.

        Raises:
            BadSampleError: in one line, when a worker refused a sample.
            WorkerLostError: in one line, when a worker died or hangs.
        """
        while True:
            try:
                # Energon forks its workers when the first item is asked for, torch when the iterator is made.
                with ready_to_fork() if self._items is None else nullcontext():
                    if self._items is None:
                        self._items = self._start()
                    item = next(self._items)
            except StopIteration:
                raise
            except Exception as error:
                named = in_one_line(error, self.faults, self.lost_worker)
                if named is error:
                    raise
                raise named from error
            batch = self._batch(item)
            if batch is not None:
                return batch

    def workers(self) -> list[Any]:
        """Return the worker processes by number; [] before the first batch and without workers."""
        return internals.processes(self._worker_iterator())

    def lost_worker(self, timed_out: bool = False) -> str | None:
        """Return a line on a worker that died, or that hangs when the wait for the next batch timed out; else None.

        torch notices a death by a signal, wherever this process is: ask here after any exception.
        """
        iterator = self._worker_iterator()
        if not internals.has_workers(iterator):
            return None
        stuck = internals.next_worker(iterator) if timed_out else None
        return lost_worker(iterator, self.faults, stuck, self.worker_timeout)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken. Before the first batch only.

        Raises:
            DataError: it comes from another kind of stream, other data or other settings.
        """
        if self._items is not None:
            raise DataError("this loader has already given batches: build a new one and restore it first")
        check_version(state, self.VERSION)
        differing = differences(self._saved_identity(state), self._identity())
        if differing:
            raise DataError(
                f"the data position cannot be restored: {'; '.join(differing)}. Resume with the saved values, or begin "
                "the data again with data.start_anew_at=STEP of that checkpoint and accept that samples are seen again"
            )
        self._resume(state)

    @abstractmethod
    def close(self) -> None:
        """End the workers."""
