"""Pack -> micro-batch: decode once per pack, drop what cannot be decoded, collate.

It runs in the worker process when DALI decodes on the CPU, and in the training process when it decodes on the
GPU. A bad image costs its own sample and nobody else's: the sample's segment leaves the pack and is counted.
"""

from __future__ import annotations

from nemo_amalia.data.encoding.encoders import SampleEncoder, encoder_of
from nemo_amalia.data.encoding.hf_folder import ModelFormat
from nemo_amalia.data.faults.board import FaultBoard
from nemo_amalia.data.images.decode import TileMaker
from nemo_amalia.data.images.headers import ImageError
from nemo_amalia.data.loading.collator import Collator
from nemo_amalia.data.samples import BadSampleError, Pack, PackedBatch
from nemo_amalia.data.settings import StreamSettings
from nemo_amalia.utils.errors import ConfigError, DataError

POLICIES = ("fail", "drop")


def check_policy(key: str, value: str) -> str:
    """The value itself. Raises DataError for one that is no policy."""
    if value not in POLICIES:
        raise DataError(f"{key} is {value!r}: expected one of {', '.join(POLICIES)}")
    return value


class PackAssembler:
    """Makes a PackedBatch of a Pack. on_bad_image: "drop" the sample and count it, or "fail"."""

    def __init__(self, tiles: TileMaker, collator: Collator, faults: FaultBoard, on_bad_image: str = "drop") -> None:
        self.tiles = tiles
        self.collator = collator
        self.faults = faults
        self.on_bad_image = check_policy("on_bad_image", on_bad_image)

    def __call__(self, pack: Pack) -> PackedBatch | None:
        """None when no sample, or pair, of the pack is left. Raises BadSampleError under "fail"."""
        images = [data for sample in pack.samples for data in sample.images]
        first = pack.samples[0].key if pack.samples else "nothing"
        self.faults.begin(f"decoding {len(images)} images of a pack of {len(pack.samples)} samples, the first {first}")
        tiling = [sample.tiling for sample in pack.samples for _ in sample.images]
        decoded = iter(self.tiles(images, tiling))
        samples, tiles = [], []
        for sample in pack.samples:
            group = [next(decoded) for _ in sample.images]
            errors = [(index, result) for index, result in enumerate(group) if isinstance(result, ImageError)]
            if not errors:
                samples.append(sample)
                tiles.append(group)
                continue
            index, error = errors[0]
            message = f"image {index} of sample {sample.key}: {error}"
            if self.on_bad_image == "fail":
                self.faults.fail(message)
                raise BadSampleError(message, "image")
            self.faults.drop(sample.key, "image", message, sample.dataset, sample.shard)
        if not samples:
            return None
        batch = self.collator(samples, tiles)
        for sample in samples:
            self.faults.count_out(1, sample.dataset)
        return batch


def pack_parts(settings: StreamSettings, form: ModelFormat, faults: FaultBoard) -> tuple[SampleEncoder, PackAssembler]:
    """Build what makes a tokenised sample of a record, and a micro-batch of a pack.

    Raises ConfigError for preference pairs without packing.
    """
    if settings.sample_kind == "preferences" and not settings.packing:
        raise ConfigError("stage dpo needs stage.packing=true: a pair is two segments of one pack")
    collator = Collator(
        pad_token_id=form.chat.pad_token_id,
        image_token_id=form.chat.image_token_id,
        geometry=form.geometry,
        settings=settings,
        image_mean=form.image_mean,
        image_std=form.image_std,
    )
    maker = TileMaker(form.geometry, settings.data.max_image_pixels, settings.decode_device, settings.decode_threads)
    encoder = encoder_of(form.chat, form.geometry, settings)
    return encoder, PackAssembler(maker, collator, faults, settings.on_bad_image)
