"""Settings of a stream, and the encoder and assembler that they build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemo_amalia.data.encoding.chat import ChatFormat
from nemo_amalia.data.encoding.encoders import ConversationEncoder, RecordEncoder, encoder_of
from nemo_amalia.data.faults.board import FaultBoard
from nemo_amalia.data.images.geometry import ImageGeometry
from nemo_amalia.data.images.headers import MAX_PIXELS, check_max_pixels
from nemo_amalia.data.images.tiles import TileMaker
from nemo_amalia.data.loading.assembly import PackAssembler
from nemo_amalia.data.loading.collator import Collator
from nemo_amalia.utils.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """What a stream is made of, besides its data.

    image_mean, image_std: of each channel, for pixels scaled to 0..1 (the processor's).
    sample_kind: what the data holds, "conversations" or "preferences". share_pair_images: off makes tiles of a pair's
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
    sample_kind: str = "conversations"
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
        if self.sample_kind == "preferences" and not self.packing:
            raise ConfigError("sample_kind is preferences and packing is off: a pair is two segments of one pack")
        if not self.worker_timeout > 0:
            raise ConfigError(f"worker_timeout is {self.worker_timeout}: expected seconds, more than 0")
        if not 0 <= self.dp_rank < self.dp_size:
            raise ConfigError(f"dp_rank is {self.dp_rank} of dp_size {self.dp_size}: expected 0 to {self.dp_size - 1}")

    def state_depends_on(self) -> dict[str, Any]:
        """What a saved dataloader state depends on, as plain values."""
        names = (
            "tiling packing micro_batch_size segment_multiple dp_rank dp_size num_workers seq_length seed "
            "packing_buffer_size packing_algorithm shuffle_buffer_size max_samples_per_sequence max_image_pixels "
            "sample_kind"
        ).split()
        grid = f"{self.geometry.tile}/{self.geometry.patch}/{self.geometry.pinpoints}"
        return {name: getattr(self, name) for name in names} | {"geometry": grid}


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
    encoder = encoder_of(config.sample_kind, conversations, config.segment_multiple)
    return encoder, PackAssembler(maker, collator, faults, config.on_bad_image)
