"""The packs of benchmarks/gpu_packs.py as Megatron Bridge takes a stream. Megatron is ready when this is imported."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.bridge.data.base import DatasetBuildContext, DatasetProvider

from benchmarks.gpu_packs import pack_lengths, pack_samples
from nemo_amalia.cluster.plan.microbatch import IMAGE_SHARE
from nemo_amalia.config.schema import DataConfig, RunConfig
from nemo_amalia.data.loading.collator import Collator
from nemo_amalia.data.settings import StreamSettings


@dataclass
class SlicePacks(DatasetProvider):
    """The same packs over and over, dealt over the data-parallel ranks. segment_multiple: as of the Collator."""

    seq_length: int = 0
    segment_multiple: int = 1
    image_token_id: int = 0
    geometry: object = None
    dataloader_type: str | None = "external"

    def build_datasets(self, context: DatasetBuildContext):
        """(this rank's stream, no validation, no test)."""
        group = context.pg_collection.dp
        return self.stream(group.rank(), group.size()), None, None

    def stream(self, rank: int, size: int):
        """PackedBatch after PackedBatch of one data-parallel rank."""
        batches = [self.batch(lengths) for lengths in pack_lengths(self.seq_length)[rank::size]]
        while True:
            yield from batches

    def batch(self, lengths: list[int]):
        """One pack."""
        whole = [max(length // self.segment_multiple, 1) * self.segment_multiple for length in lengths]
        drawn = pack_samples(whole, self.geometry, self.image_token_id, IMAGE_SHARE)
        settings = StreamSettings(
            data=DataConfig(),
            sample_kind="conversations",
            seq_length=self.seq_length,
            micro_batch_size=1,
            tiling=True,
            packing=True,
            segment_multiple=self.segment_multiple,
            seed=RunConfig.seed,
        )
        collate = Collator(
            pad_token_id=2, image_token_id=self.image_token_id, geometry=self.geometry, settings=settings
        )
        return collate([sample for sample, _ in drawn], [tiles for _, tiles in drawn])
