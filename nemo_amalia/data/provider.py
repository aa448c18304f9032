"""Megatron Bridge's view of the data path: a serialisable config that builds this rank's stream.

Every rank of a model replica reads the same stream (it is a function of seed and data-parallel rank alone), as
Bridge's own Energon provider does; Bridge saves and restores its position beside each checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from megatron.bridge.data.base import DatasetBuildContext, DatasetProvider

from nemo_amalia.data.encoding.hf_folder import ModelFormat
from nemo_amalia.data.images.geometry import ImageGeometry
from nemo_amalia.data.samples import PackedBatch
from nemo_amalia.data.settings import StreamSettings


@dataclass
class AmaliaDatasetProvider(DatasetProvider):
    """What the training stream is made of. Plain values only: Bridge writes them into run_config.yaml.

    stream: StreamSettings.to_plain(). assets: folder with the tokenizer, its chat template and
    preprocessor_config.json (a checkpoint's ``hf``). tile, patch, pinpoints: the model's image geometry, pixels.
    """

    stream: dict[str, Any] = field(default_factory=dict)
    assets: str = ""
    tile: int = 384
    patch: int = 16
    pinpoints: list[list[int]] = field(default_factory=list)
    dataloader_type: str | None = "external"

    def build_datasets(self, context: DatasetBuildContext) -> tuple[Any, None, None]:
        """Build this data-parallel rank's stream, and no validation or test stream."""
        settings = StreamSettings.from_plain(self.stream)
        geometry = ImageGeometry(self.tile, self.patch, tuple((h, w) for h, w in self.pinpoints))
        form, group = ModelFormat.of(self.assets, geometry), context.pg_collection.dp
        ranks = {"dp_rank": group.rank(), "dp_size": group.size()}
        path, index = settings.data.path, settings.data.pack_index
        if index:
            from nemo_amalia.data.loading.index_stream import build_index_loader, share_positions

            share_positions(self.dataloader_load, group.rank())
            return SavableStream(build_index_loader(index, path, settings, form, **ranks)), None, None
        from nemo_amalia.data.loading.energon_stream import build_loader

        return SavableStream(build_loader(path, settings, form, **ranks)), None, None


class SavableStream:
    """Gives the loader the names that Bridge looks for: save_state and restore_state."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return self

    def __next__(self) -> PackedBatch:
        return next(self.loader)

    def save_state(self) -> dict:
        """Called by Bridge on one rank of each replica when a checkpoint is written."""
        return self.loader.state()

    def restore_state(self, state: dict) -> None:
        """Called by Bridge on every rank when a run resumes. Raises DataError for a position of other settings."""
        self.loader.restore(state)
