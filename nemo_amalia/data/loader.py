"""A savable stream of micro-batches for one data-parallel rank.

Order: fixed by (seed, dp_rank, dp_size, num_workers) and the data. Energon cuts the samples over dp_size *
max(num_workers, 1) slices, so a global batch holds the same samples at any dp_size whose product with
num_workers is the same (dp_size=1, num_workers=2 against dp_size=2, num_workers=1); it does not when the
product changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from megatron.energon import WorkerConfig, get_savable_loader, get_train_dataset

from nemo_amalia.data.assembly import PackAssembler
from nemo_amalia.data.chat import ChatFormat
from nemo_amalia.data.collator import Collator
from nemo_amalia.data.encoding import ConversationEncoder, RecordEncoder, encoder_of
from nemo_amalia.data.faults import FaultBoard
from nemo_amalia.data.image_geometry import ImageGeometry
from nemo_amalia.data.image_headers import MAX_PIXELS, check_max_pixels
from nemo_amalia.data.images import TileMaker
from nemo_amalia.data.layout import differences, resolve
from nemo_amalia.data.quarantine import Quarantine
from nemo_amalia.data.samples import BadSampleError, Pack, PackedBatch
from nemo_amalia.data.task_encoder import AmaliaTaskEncoder
from nemo_amalia.data.workers import PatientQueue, WorkerLostError, awaited, in_one_line, lost_worker, ready_to_fork

STATE_VERSION = 1
BEFORE = {"max_image_pixels": MAX_PIXELS, "records": "conversations"}  # what older positions do not name


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """What a stream is made of, besides its data.

    image_mean, image_std: of each channel, for pixels scaled to 0..1 (the processor's).
    records: what the data holds, "conversations" or "preferences". share_pair_images: off makes tiles of a pair's
        images once for each answer.
    tiling: off in the paper's stage 1 (thumbnail only).
    packing: packs of one row of seq_length; without it micro_batch_size rows, one sample each, padded.
    segment_multiple: 2 * CP when CP > 1.
    max_image_pixels: width times height; a larger image is not decoded, and counts as a bad one.
    on_bad_sample, on_bad_image: "fail" raises one line that names the sample and its shard; "drop" counts it.
    decode_device: "cpu" decodes in the workers; "mixed" decodes on this process's GPU, workers only tokenise.
    repeat: off ends the stream after one pass over the data.
    checkpoint_every_seconds: how often a worker notes its position; what came after is redone on restore.
    worker_timeout: seconds without a batch after which a worker counts as hanging; not used without workers.
    quarantine: a .jsonl of samples to leave out, or a folder of them.
    """

    geometry: ImageGeometry
    chat: ChatFormat
    seq_length: int
    image_mean: Sequence[float]
    image_std: Sequence[float]
    records: str = "conversations"
    share_pair_images: bool = True
    tiling: bool = True
    packing: bool = True
    micro_batch_size: int = 1
    segment_multiple: int = 1
    dp_rank: int = 0
    dp_size: int = 1
    num_workers: int = 2
    packing_buffer_size: int = 500
    packing_algorithm: str = "best_fit_decreasing"
    shuffle_buffer_size: int = 1000
    max_samples_per_sequence: int = 100
    seed: int = 0
    max_image_pixels: int = MAX_PIXELS
    on_bad_sample: str = "fail"
    on_bad_image: str = "drop"
    decode_device: str = "cpu"
    decode_threads: int = 1
    repeat: bool = True
    prefetch_factor: int = 2
    checkpoint_every_seconds: float = 60
    worker_timeout: float = 600
    quarantine: str | None = None

    def __post_init__(self) -> None:
        check_max_pixels(self.max_image_pixels)
        if self.records == "preferences" and not self.packing:
            raise ValueError("records are preferences and packing is off: a pair is two segments of a pack; pack it")
        if not self.worker_timeout > 0:
            raise ValueError(f"worker_timeout is {self.worker_timeout}: expected seconds, more than 0")
        if not 0 <= self.dp_rank < self.dp_size:
            raise ValueError(f"dp_rank is {self.dp_rank} of dp_size {self.dp_size}: expected 0 to {self.dp_size - 1}")

    def layout(self) -> dict[str, Any]:
        """What a saved position depends on, as plain values."""
        names = (
            "tiling packing micro_batch_size segment_multiple dp_rank dp_size num_workers seq_length seed "
            "packing_buffer_size packing_algorithm shuffle_buffer_size max_samples_per_sequence max_image_pixels "
            "records"
        ).split()
        grid = f"{self.geometry.tile}/{self.geometry.patch}/{self.geometry.pinpoints}"
        return {name: getattr(self, name) for name in names} | {"geometry": grid}


def build_loader(path: str | Path | Sequence[tuple[str | Path, float]], **settings: Any) -> PackLoader:
    """The stream of PackedBatch of one data-parallel rank.

    path: a folder of prepared shards, a metadataset .yaml, or a blend [(path, weight), ...]. settings: the
    fields of StreamSettings. Raises ValueError, before anything is started, on what cannot work.
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


def pack_parts(config: StreamSettings, faults: FaultBoard) -> tuple[RecordEncoder, PackAssembler]:
    """What makes a sample of a conversation, and a micro-batch of a pack."""
    collator = Collator(
        seq_length=config.seq_length,
        pad_token_id=config.chat.pad_token_id,
        image_token_id=config.chat.image_token_id,
        geometry=config.geometry,
        segment_multiple=config.segment_multiple,
        packing=config.packing,
        micro_batch_size=config.micro_batch_size,
        image_mean=config.image_mean,
        image_std=config.image_std,
        share_pair_images=config.share_pair_images,
    )
    maker = TileMaker(config.geometry, config.decode_device, config.decode_threads, config.max_image_pixels)
    conversations = ConversationEncoder(
        config.chat, config.geometry, config.seq_length, config.tiling, config.max_image_pixels
    )
    encoder = encoder_of(config.records, conversations, config.segment_multiple)
    return encoder, PackAssembler(maker, collator, faults, config.on_bad_image)


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


class PackLoader:
    """Iterates PackedBatch; `state` and `restore` are exact. One iteration in a loader's life."""

    def __init__(
        self,
        energon: Any,
        task_encoder: AmaliaTaskEncoder,
        faults: FaultBoard,
        layout: dict[str, Any],
        worker_timeout: float = 600,
    ) -> None:
        self.faults = faults
        self.layout = layout
        self.worker_timeout = worker_timeout
        self._energon = energon
        self.task_encoder = task_encoder
        self._iterator: Iterator[Any] | None = None
        if energon.num_workers:
            energon.timeout = worker_timeout
            energon.result_queues = [
                PatientQueue(answers, number, worker_timeout, self._no_answer)
                for number, answers in enumerate(energon.result_queues)
            ]

    def __iter__(self) -> PackLoader:
        return self

    def __next__(self) -> PackedBatch:
        """Raises, in one line: BadSampleError when a worker refused a sample, WorkerLostError when it died or hangs."""
        first = self._iterator is None
        if first:
            self._iterator = iter(self._energon)
        while True:
            try:
                with ready_to_fork() if first else nullcontext():
                    item = next(self._iterator)
            except StopIteration:
                raise
            except Exception as error:
                named = in_one_line(error, self.faults, self.lost_worker)
                if named is error:
                    raise
                raise named from error
            batch = self.task_encoder.assembler(item) if isinstance(item, Pack) else item
            if batch is not None:
                return batch

    def lost_worker(self, timed_out: bool = False) -> str | None:
        """One line on a worker that died, or that hangs when the wait for the next batch timed out; else None.

        torch notices a death by a signal, wherever this process is: ask here after any exception.
        """
        iterator = getattr(self._energon, "_iterator", None)
        stuck = awaited(iterator) if timed_out and iterator is not None else None
        return lost_worker(iterator, self.faults, stuck, self.worker_timeout)

    def _no_answer(self, number: int) -> WorkerLostError:
        iterator = self._energon._iterator
        # Energon numbers workers from the one that a restored position began with (worker_id_offset).
        stuck = (number - self._energon.dataset._worker_offset) % len(iterator._workers)
        return WorkerLostError(lost_worker(iterator, self.faults, stuck, self.worker_timeout))

    def state(self) -> dict[str, Any]:
        """The position after the last batch given out: restore keys and counters, tens of kilobytes.

        Raises WorkerLostError when a worker does not answer.
        """
        return {
            "version": STATE_VERSION,
            "layout": dict(self.layout),
            "energon": self._energon.save_state_rank(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues where `state` was taken. Before the first batch only.

        Raises ValueError when the state comes from another layout: Energon's position is that of each worker
        of each rank and cannot be redistributed.
        """
        if self._iterator is not None:
            raise ValueError("this loader has already given batches: build a new one and restore it first")
        if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
            raise ValueError(f"this is no data state of version {STATE_VERSION}: {str(state)[:80]!r}")
        differing = differences(BEFORE | state["layout"], self.layout)
        if differing:
            raise ValueError(
                f"the data position cannot be restored: {'; '.join(differing)}. Resume with the saved values, or begin "
                "the data again with data.start_anew_at=STEP of that checkpoint and accept that samples are seen again"
            )
        self._energon.restore_state_rank(state["energon"])

    def close(self) -> None:
        """Ends the workers."""
        self._iterator = None
        self._energon._epoch_iterator = None
        workers = getattr(self._energon, "_iterator", None)
        if workers is not None:
            workers._shutdown_workers()
            self._energon._iterator = None


def has_gpu() -> bool:
    """Whether CUDA is really here; `torch.cuda.is_available` is overridden by the CPU platform."""
    return torch.backends.cuda.is_built() and torch._C._cuda_getDeviceCount() > 0


def _stop_the_run(error: Exception, sample: Any, sources: list[Any] | None = None) -> None:
    """Energon would skip the sample and carry on. What may be dropped was dropped before; the rest is our
    fault.
    """
    if isinstance(error, BadSampleError):
        raise error
    where = f"{sources[0].dataset_path}/{sources[0].shard_name}" if sources else "the pack"
    raise RuntimeError(f"the data path failed on sample {getattr(sample, '__key__', '?')} of {where}") from error
