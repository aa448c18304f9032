"""Megatron Bridge's view of the data path: a serialisable config that builds this rank's stream.

Every rank of a model replica reads the same stream (it is a function of seed and data-parallel rank alone), as
Bridge's own Energon provider does; Bridge saves and restores its position beside each checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from megatron.bridge.data.base import DatasetBuildContext, DatasetProvider

from nemo_amalia.data.encoding.hf_folder import image_statistics
from nemo_amalia.data.images.geometry import ImageGeometry
from nemo_amalia.data.images.headers import MAX_PIXELS
from nemo_amalia.data.samples import PackedBatch


@dataclass
class AmaliaDatasetProvider(DatasetProvider):
    """What the training stream is made of. Plain values only: Bridge writes them into run_config.yaml.

    assets: folder with the tokenizer, its chat template and preprocessor_config.json (a checkpoint's ``hf``).
    pack_index: an index of `amalia data pack`, or empty: Energon streams and packs.
    tile, patch, pinpoints: the model's image geometry, pixels. Other fields as in config.schema.
    """

    path: str = ""
    pack_index: str = ""
    assets: str = ""
    tile: int = 384
    patch: int = 16
    pinpoints: list[list[int]] = field(default_factory=list)
    sample_kind: str = "conversations"
    share_pair_images: bool = True
    seq_length: int = 16384
    micro_batch_size: int = 1
    segment_multiple: int = 1
    tiling: bool = True
    packing: bool = True
    packing_buffer_size: int = 500
    packing_algorithm: str = "best_fit_decreasing"
    shuffle_buffer_size: int = 1000
    max_samples_per_sequence: int = 100
    on_bad_sample: str = "fail"
    worker_timeout: float = 600.0
    quarantine: str | None = None
    decode_device: str = "cpu"
    max_image_pixels: int = MAX_PIXELS
    seed: int = 1234
    dataloader_type: str | None = "external"

    def build_datasets(self, context: DatasetBuildContext) -> tuple[Any, None, None]:
        """This data-parallel rank's stream, and no validation or test stream."""
        from transformers import AutoTokenizer

        from nemo_amalia.data.encoding.chat import ChatFormat

        mean, std = image_statistics(self.assets)
        group = context.pg_collection.dp
        settings = dict(
            geometry=ImageGeometry(self.tile, self.patch, tuple((h, w) for h, w in self.pinpoints)),
            chat=ChatFormat(AutoTokenizer.from_pretrained(self.assets)),
            sample_kind=self.sample_kind,
            share_pair_images=self.share_pair_images,
            seq_length=self.seq_length,
            image_mean=mean,
            image_std=std,
            tiling=self.tiling,
            packing=self.packing,
            micro_batch_size=self.micro_batch_size,
            segment_multiple=self.segment_multiple,
            dp_rank=group.rank(),
            dp_size=group.size(),
            num_workers=self.num_workers,
            packing_buffer_size=self.packing_buffer_size,
            packing_algorithm=self.packing_algorithm,
            shuffle_buffer_size=self.shuffle_buffer_size,
            max_samples_per_sequence=self.max_samples_per_sequence,
            seed=self.seed,
            on_bad_sample=self.on_bad_sample,
            worker_timeout=self.worker_timeout,
            quarantine=self.quarantine,
            max_image_pixels=self.max_image_pixels,
            decode_device=self.decode_device,
        )
        if self.pack_index:
            from nemo_amalia.data.loading.index_stream import build_index_loader, share_positions

            share_positions(self.dataloader_load, group.rank())
            return SavableStream(build_index_loader(self.pack_index, self.path, **settings)), None, None
        from nemo_amalia.data.loading.energon_stream import build_loader

        return SavableStream(build_loader(self.path, **settings)), None, None


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
        """Called by Bridge on every rank when a run resumes. Raises DataError for a state of other settings."""
        self.loader.restore(state)
