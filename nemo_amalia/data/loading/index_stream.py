"""A stream of micro-batches from an index of packs: the same at every number of ranks and workers.

Pack number `position` of the run, counted over all data-parallel ranks and all epochs, is a function of the seed alone:
its epoch is position // packs, and epoch_order says which pack of the index stands there. Rank r of d gives positions
first + r, first + r + d, ...: at the end of a global batch all ranks have given equally many, and one number, the next
position, says where the run is. It can be resumed with any other number of ranks or workers, exactly. The last global
batch of an epoch takes what it lacks from the next one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from nemo_amalia.data.encoding.hf_folder import ModelFormat
from nemo_amalia.data.faults.board import FaultBoard
from nemo_amalia.data.loading import energon_internals as internals
from nemo_amalia.data.loading.assembly import pack_parts
from nemo_amalia.data.loading.collator import Collator
from nemo_amalia.data.loading.energon_stream import check_rank
from nemo_amalia.data.loading.index_reader import SampleReader
from nemo_amalia.data.loading.stream import Stream
from nemo_amalia.data.packing.index import PackIndex, epoch_order, read_index, refuse_other, settings_of, shard_places
from nemo_amalia.data.samples import Pack, PackedBatch, TokenizedSample
from nemo_amalia.data.settings import StreamSettings
from nemo_amalia.data.shards.check import check_folder
from nemo_amalia.utils.devices import has_gpu
from nemo_amalia.utils.errors import ConfigError
from nemo_amalia.utils.files import atomic_file

STATE_VERSION = "pack index 1"  # kind and number; another one is refused
ENDLESS = 1 << 62  # positions
POSITION = "train_dataloader_dprank{:03d}.pt"  # Bridge's name (training/checkpointing.py)


def build_index_loader(
    index: str | Path,
    folder: str | Path,
    settings: StreamSettings,
    form: ModelFormat,
    *,
    dp_rank: int = 0,
    dp_size: int = 1,
) -> IndexLoader:
    """Build the stream of one data-parallel rank from a pack index; Energon's buffers are not used.

    folder: what data.path names, a folder of shards or a mix of several. A sample that the index holds and training
    cannot read follows data.on_bad_sample.

    Raises:
        DataError: for an index of other shards, another tokenizer, template, geometry or pack, naming which.
    """
    check_rank(dp_rank, dp_size)
    if not settings.packing:
        raise ConfigError("data.pack_index is for training with packing: set stage.packing=true, or leave it out")
    source, packs = check_folder(folder), read_index(index)
    refuse_other(index, packs.head, settings_of(form.chat, form.geometry, settings), source)
    faults = FaultBoard(settings.data.num_workers)
    parts = _Packs(packs, shard_places(packs.head, source), settings, form, faults)
    return IndexLoader(parts, settings, faults, dp_rank, dp_size)


class IndexLoader(Stream):
    """Micro-batches of an index of packs; `state` and `restore` are exact at the end of a global batch."""

    VERSION = STATE_VERSION

    def __init__(self, packs: _Packs, settings: StreamSettings, faults: FaultBoard, dp_rank: int, dp_size: int) -> None:
        super().__init__(faults, settings.data.worker_timeout)
        self.packs, self.settings = packs, settings
        self.dp_rank, self.dp_size = dp_rank, dp_size
        self.position = 0  # of the whole data-parallel group, before the first batch
        self._given = 0  # by this rank

    def _start(self) -> Iterator[Any]:
        settings = self.settings
        end = self.position + ENDLESS if settings.repeat else len(self.packs.index)
        workers = settings.data.num_workers
        if workers:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # Rust threads do not survive the fork
        return iter(
            DataLoader(
                self.packs,
                batch_size=None,
                sampler=range(self.position + self.dp_rank, end, self.dp_size),
                num_workers=workers,
                prefetch_factor=settings.prefetch_factor if workers else None,
                timeout=settings.data.worker_timeout if workers else 0,
                multiprocessing_context="fork" if workers else None,  # the board is inherited
                pin_memory=has_gpu(),
            )
        )

    def _worker_iterator(self) -> Any | None:
        return self._items

    def _batch(self, item: Any) -> PackedBatch:
        self._given += 1
        return self.packs.assemble(item) if isinstance(item, Pack) else item

    def state(self) -> dict[str, Any]:
        """The next position of the data-parallel group, and what it means something for. The same on every rank."""
        return {
            "version": STATE_VERSION,
            **self._identity(),
            "position": self.position + self._given * self.dp_size,
        }

    def _identity(self) -> dict[str, Any]:
        """Neither ranks nor workers: a position is a number of packs, over all of them."""
        return {"index": self.packs.index.head["digest"], "seed": self.settings.seed}

    def _saved_identity(self, state: dict[str, Any]) -> dict[str, Any]:
        return {name: state[name] for name in self._identity()}

    def _resume(self, state: dict[str, Any]) -> None:
        self.position = state["position"]

    def close(self) -> None:
        """Ends the workers."""
        internals.shut_down(self._items)
        self._items = iter(())


class _Packs(Dataset):
    """Position -> micro-batch, or the undecoded pack where the training process decodes on its GPU."""

    def __init__(
        self,
        index: PackIndex,
        shards: list[tuple[Path, str]],
        settings: StreamSettings,
        form: ModelFormat,
        faults: FaultBoard,
    ) -> None:
        self.index = index
        self.seed, self.decode_here = settings.seed, settings.decode_device == "cpu"
        encoder, self.assembler = pack_parts(settings, form, faults)
        self.read = SampleReader(index, shards, encoder, faults, settings)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __getitem__(self, position: int) -> PackedBatch | Pack:
        epoch, place = divmod(position, len(self.index))
        if self._order[0] != epoch:
            self._order = epoch, epoch_order(len(self.index), self.seed, epoch)
        which = int(self._order[1][place])
        rows = range(int(self.index.starts[which]), int(self.index.starts[which + 1]))
        found = (self.read(row, which) for row in rows)
        pack = Pack(tuple(sample for sample in found if sample is not None))
        return self.assemble(pack) if self.decode_here else pack

    def assemble(self, pack: Pack) -> PackedBatch:
        """With an empty batch for a pack of which nothing is left: a position is a micro-batch, always."""
        batch = self.assembler(pack) if pack.samples else None
        return empty_batch(self.assembler.collator) if batch is None else batch


def empty_batch(collator: Collator) -> PackedBatch:
    """A micro-batch of one padding token, of which nothing is learned: no sample, no pair."""
    one = np.asarray([collator.pad_token_id], dtype=np.int32)
    empty = TokenizedSample("", "", one, np.zeros(1, dtype=np.uint8), (), (), tiling=False)
    return replace(collator([empty], [[]]), keys=[], num_samples=0, num_tokens=0)


def share_positions(folder: str | None, dp_rank: int) -> None:
    """Gives a data-parallel rank that the saved run did not have the position of rank 0: an index has one for all.

    Bridge looks for a file of each rank, after it has built the stream, and ends the run where there is none.
    """
    for first in Path(folder or "").glob(f"iter_*/{POSITION.format(0)}") if folder else ():
        own = first.with_name(POSITION.format(dp_rank))
        if not own.exists():  # ranks of one replica may do this at once: each writes its own copy, and renames it
            with atomic_file(own) as copy:
                shutil.copyfile(first, copy)
