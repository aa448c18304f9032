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

from nemo_amalia.data.faults.board import FaultBoard
from nemo_amalia.data.faults.quarantine import Quarantine
from nemo_amalia.data.images.headers import MAX_PIXELS
from nemo_amalia.data.loading import energon_internals as internals
from nemo_amalia.data.loading.position import resolve
from nemo_amalia.data.loading.settings import StreamSettings, pack_parts
from nemo_amalia.data.loading.stream import Stream
from nemo_amalia.data.loading.task_encoder import AmaliaTaskEncoder
from nemo_amalia.data.loading.workers import PatientQueue, WorkerLostError, lost_worker
from nemo_amalia.data.samples import BadSampleError, Pack, PackedBatch
from nemo_amalia.utils.devices import has_gpu

STATE_VERSION = 1
BEFORE = {"max_image_pixels": MAX_PIXELS, "records": "conversations"}  # what older positions do not name


def build_loader(path: str | Path | Sequence[tuple[str | Path, float]], **settings: Any) -> PackLoader:
    """The stream of PackedBatch of one data-parallel rank.

    path: a folder of prepared shards, a metadataset .yaml, or a blend [(path, weight), ...]. settings: the
    fields of StreamSettings. Raises DataError, before anything is started, on what cannot work.
    """
    config = StreamSettings(**settings)
    faults = FaultBoard(config.num_workers)
    quarantine = Quarantine(config.quarantine) if config.quarantine else None
    task_encoder = _task_encoder(config, faults, quarantine)
    source, identity = resolve(path)
    dataset = get_train_dataset(
        source,
        worker_config=WorkerConfig(
            rank=config.dp_rank,
            world_size=config.dp_size,
            num_workers=config.num_workers,
            seed_offset=config.seed,
            global_error_handler=_stop_the_run,
        ),
        batch_size=None if config.packing else config.micro_batch_size,
        packing_buffer_size=config.packing_buffer_size if config.packing else None,
        shuffle_buffer_size=config.shuffle_buffer_size,
        max_samples_per_sequence=config.max_samples_per_sequence,
        task_encoder=task_encoder,
        repeat=config.repeat,
    )
    if config.num_workers:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # Rust threads do not survive the fork
    energon = get_savable_loader(
        dataset,
        checkpoint_every_sec=config.checkpoint_every_seconds,
        prefetch_factor=config.prefetch_factor,
        watchdog_timeout_seconds=None,
    )
    # Energon pins always; without a GPU torch only warns, and under the CPU platform it would try.
    energon.pin_memory = has_gpu()
    layout = config.layout() | {"data": identity, "quarantine": quarantine.fingerprint if quarantine else None}
    return PackLoader(energon, task_encoder, faults, layout, config.worker_timeout)


def _task_encoder(config: StreamSettings, faults: FaultBoard, quarantine: Quarantine | None) -> AmaliaTaskEncoder:
    return AmaliaTaskEncoder(
        *pack_parts(config, faults),
        faults,
        capacity=config.seq_length,
        packing_algorithm=config.packing_algorithm,
        segment_multiple=config.segment_multiple,
        seed=config.seed,
        on_bad_sample=config.on_bad_sample,
        decode_in_worker=config.decode_device == "cpu",
        quarantine=quarantine,
    )


class PackLoader(Stream):
    """Micro-batches of packs that Energon makes on the way."""

    VERSION = STATE_VERSION
    OTHER_STATE = (
        f"this is no data state of version {STATE_VERSION}, as a stream without an index of packs saves it: resume "
        "with the data.pack_index of the saved run, or begin the data again with data.start_anew_at=STEP of that "
        "checkpoint; samples are then seen again"
    )

    def __init__(
        self,
        energon: Any,
        task_encoder: AmaliaTaskEncoder,
        faults: FaultBoard,
        layout: dict[str, Any],
        worker_timeout: float = 600,
    ) -> None:
        super().__init__(faults, worker_timeout)
        self.layout = layout
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
            "layout": self._identity(),
            "energon": self._energon.save_state_rank(),
        }

    def _identity(self) -> dict[str, Any]:
        """Energon's position is that of each worker of each rank and cannot be redistributed."""
        return dict(self.layout)

    def _saved_identity(self, state: dict[str, Any]) -> dict[str, Any]:
        return BEFORE | state["layout"]

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
