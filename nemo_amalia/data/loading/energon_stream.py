"""A savable stream of micro-batches for one data-parallel rank.

Order: fixed by (seed, dp_rank, dp_size, num_workers) and the data. Energon cuts the samples over dp_size *
max(num_workers, 1) slices, so a global batch holds the same samples at any dp_size whose product with
num_workers is the same (dp_size=1, num_workers=2 against dp_size=2, num_workers=1); it does not when the
product changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from megatron.energon import WorkerConfig, get_savable_loader, get_train_dataset

from nemo_amalia.data.encoding.hf_folder import ModelFormat
from nemo_amalia.data.faults.board import FaultBoard
from nemo_amalia.data.faults.quarantine import Quarantine
from nemo_amalia.data.loading import energon_internals as internals
from nemo_amalia.data.loading.assembly import pack_parts
from nemo_amalia.data.loading.position import resolve
from nemo_amalia.data.loading.stream import Stream
from nemo_amalia.data.loading.task_encoder import AmaliaTaskEncoder
from nemo_amalia.data.loading.workers import PatientQueue, WorkerLostError, lost_worker
from nemo_amalia.data.samples import BadSampleError, Pack, PackedBatch
from nemo_amalia.data.settings import StreamSettings
from nemo_amalia.utils.devices import has_gpu
from nemo_amalia.utils.errors import ConfigError

STATE_VERSION = "energon 2"  # kind and number; another one is refused


def build_loader(
    path: str | Path | Sequence[tuple[str | Path, float]],
    settings: StreamSettings,
    form: ModelFormat,
    *,
    dp_rank: int = 0,
    dp_size: int = 1,
) -> PackLoader:
    """Build the stream of PackedBatch of one data-parallel rank.

    path: a folder of prepared shards, a metadataset .yaml, or a blend [(path, weight), ...].

    Raises:
        DataError, ConfigError: before anything is started, on what cannot work.
    """
    check_rank(dp_rank, dp_size)
    data = settings.data
    faults = FaultBoard(data.num_workers)
    quarantine = Quarantine(data.quarantine) if data.quarantine else None
    task_encoder = AmaliaTaskEncoder(*pack_parts(settings, form, faults), faults, settings, quarantine)
    source, identity = resolve(path)
    dataset = get_train_dataset(
        source,
        worker_config=WorkerConfig(
            rank=dp_rank,
            world_size=dp_size,
            num_workers=data.num_workers,
            seed_offset=settings.seed,
            global_error_handler=_stop_the_run,
        ),
        batch_size=None if settings.packing else settings.micro_batch_size,
        packing_buffer_size=data.packing_buffer_size if settings.packing else None,
        shuffle_buffer_size=data.shuffle_buffer_size,
        max_samples_per_sequence=data.max_samples_per_sequence,
        task_encoder=task_encoder,
        repeat=settings.repeat,
    )
    if data.num_workers:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # Rust threads do not survive the fork
    energon = get_savable_loader(
        dataset,
        checkpoint_every_sec=settings.checkpoint_every_seconds,
        prefetch_factor=settings.prefetch_factor,
        watchdog_timeout_seconds=None,
    )
    # Energon pins always; without a GPU torch only warns, and under the CPU platform it would try.
    energon.pin_memory = has_gpu()
    grid = f"{form.geometry.tile}/{form.geometry.patch}/{form.geometry.pinpoints}"
    depends_on = settings.position_keys | {"dp_rank": dp_rank, "dp_size": dp_size, "geometry": grid, "data": identity}
    depends_on["quarantine"] = quarantine.fingerprint if quarantine else None
    return PackLoader(energon, task_encoder, faults, depends_on, data.worker_timeout)


def check_rank(dp_rank: int, dp_size: int) -> None:
    """Raise ConfigError for a rank outside its group."""
    if not 0 <= dp_rank < dp_size:
        raise ConfigError(f"dp_rank is {dp_rank} of dp_size {dp_size}: expected 0 to {dp_size - 1}")


class PackLoader(Stream):
    """Micro-batches of packs that Energon makes on the way."""

    VERSION = STATE_VERSION

    def __init__(
        self,
        energon: Any,
        task_encoder: AmaliaTaskEncoder,
        faults: FaultBoard,
        depends_on: dict[str, Any],
        worker_timeout: float,
    ) -> None:
        super().__init__(faults, worker_timeout)
        self.depends_on = depends_on
        self._energon = energon
        self.task_encoder = task_encoder
        if energon.num_workers:
            energon.timeout = worker_timeout
            internals.wrap_answers(
                energon, lambda answers, number: PatientQueue(answers, number, worker_timeout, self._no_answer)
            )

    def _start(self) -> Iterator[Any]:
        return iter(self._energon)

    def _worker_iterator(self) -> Any | None:
        return internals.worker_iterator(self._energon)

    def _batch(self, item: Any) -> PackedBatch | None:
        return self.task_encoder.assembler(item) if isinstance(item, Pack) else item

    def _no_answer(self, number: int) -> WorkerLostError:
        stuck = internals.worker_of_answers(self._energon, number)
        return WorkerLostError(lost_worker(self._worker_iterator(), self.faults, stuck, self.worker_timeout))

    def state(self) -> dict[str, Any]:
        """The position after the last batch given out: restore keys and counters, tens of kilobytes.

        Raises WorkerLostError when a worker does not answer.
        """
        return {
            "version": STATE_VERSION,
            "depends_on": self._identity(),
            "energon": self._energon.save_state_rank(),
        }

    def _identity(self) -> dict[str, Any]:
        """Energon's position is that of each worker of each rank and cannot be redistributed."""
        return dict(self.depends_on)

    def _saved_identity(self, state: dict[str, Any]) -> dict[str, Any]:
        return state["depends_on"]

    def _resume(self, state: dict[str, Any]) -> None:
        self._energon.restore_state_rank(state["energon"])

    def close(self) -> None:
        """Ends the workers."""
        self._items = None
        internals.end_workers(self._energon)


def _stop_the_run(error: Exception, sample: Any, sources: list[Any] | None = None) -> None:
    """Energon would skip the sample and carry on. What may be dropped was dropped before; the rest is our
    fault.
    """
    if isinstance(error, BadSampleError):
        raise error
    where = f"{sources[0].dataset_path}/{sources[0].shard_name}" if sources else "the pack"
    raise RuntimeError(f"the data path failed on sample {getattr(sample, '__key__', '?')} of {where}") from error
