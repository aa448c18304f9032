"""Reads single parameters of a Megatron distributed checkpoint (torch_dist) into this process.

Megatron's own loader wants every layer of a rank at once (the layers are one tensor with an axis before it); an
export wants one shard after the other. torch.distributed.checkpoint can read any slice: a planner of our own asks it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from torch import Tensor
from torch.distributed._shard._utils import narrow_tensor_by_index
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from nemo_amalia.utils.errors import CheckpointError


class CheckpointReader:
    """Tensors of an iteration folder, by Megatron's description of where they lie."""

    def __init__(self, iteration: Path):
        self.iteration = Path(iteration)
        self._reader = FileSystemReader(self.iteration)
        self._metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)

    def read(self, entry: ShardedTensor | ShardedTensorFactory) -> Tensor:
        """The whole tensor that ``entry`` (of a model's sharded_state_dict; its data may be on meta) stands for.

        Raises CheckpointError when the checkpoint does not have it in this shape.
        """
        shape = entry.data.shape
        entry.data = torch.empty(shape, dtype=entry.data.dtype, device="cpu")
        if isinstance(entry, ShardedTensorFactory):  # gate and up of a gated MLP: stored apart
            parts = entry.build()
            self._fill(list(nested_values(parts)))
            return entry.merge_fn([part.data for part in parts])
        self._fill([entry])
        return entry.data

    def _fill(self, entries: list[ShardedTensor]) -> None:
        for entry in entries:
            known = self._metadata.state_dict_metadata.get(entry.key)
            if known is None or tuple(known.size) != tuple(entry.global_shape):
                seen = "nothing" if known is None else f"a tensor of {tuple(known.size)}"
                raise CheckpointError(
                    f"the checkpoint {self.iteration} has {seen} under {entry.key}; its run_config.yaml says "
                    f"{tuple(entry.global_shape)}: the two do not belong together"
                )
            planner = _OneSlice(entry)
            planner.set_up_planner({}, self._metadata, True)
            self._reader.read_data(planner.create_local_plan(), planner).wait()


class _OneSlice(LoadPlanner):
    """Asks for the slice of a stored tensor that ``entry`` describes, and puts it into ``entry.data``."""

    def __init__(self, entry: ShardedTensor):
        self.entry = entry
        # Megatron counts leading axes (the layer) in offsets and global shape, and not in the local one.
        self.sizes = torch.Size((1,) * entry.prepend_axis_num + tuple(entry.local_shape))

    def set_up_planner(self, state_dict: dict, metadata: Metadata | None = None, is_coordinator: bool = False) -> None:
        self.known = metadata.state_dict_metadata[self.entry.key]

    def create_local_plan(self) -> LoadPlan:
        chunk = ChunkStorageMetadata(torch.Size(self.entry.global_offset), self.sizes)
        return LoadPlan(create_read_items_for_chunk_list(self.entry.key, self.known, [chunk]))

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        return narrow_tensor_by_index(self.entry.data.view(self.sizes), read_item.dest_offsets, read_item.lengths)

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None: ...

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: Any) -> None:
        raise AssertionError("only tensors are asked for")
