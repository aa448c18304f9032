"""The settings of a training stream, made once from a run's configuration and passed on whole.

A key of conf/data is a field of DataConfig and of nothing else: what needs it reads `settings.data.KEY`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nemo_amalia.config.derived import segment_multiple
from nemo_amalia.config.schema import DataConfig, RunConfig
from nemo_amalia.data.images.headers import check_max_pixels
from nemo_amalia.utils.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """What a stream is made of besides the model's format. Plain values: checkpoints keep them as a mapping.

    Attributes:
        data: the run's own section, its paths absolute.
        sample_kind, seq_length, micro_batch_size, tiling, packing: of the run's stage.
        segment_multiple: 2 * CP when CP > 1; segments are padded to multiples of it.
        seed: of the run.
        on_bad_image: "drop" counts a bad image's sample, "fail" names it and ends the run.
        decode_device: "cpu" decodes in the workers; "mixed" on this process's GPU, and workers only tokenise.
        repeat: off ends the stream after one pass over the data.
        checkpoint_every_seconds: how often a worker notes its position; what came after is redone on restore.
    """

    data: DataConfig
    sample_kind: str
    seq_length: int
    micro_batch_size: int
    tiling: bool
    packing: bool
    segment_multiple: int
    seed: int
    on_bad_image: str = "drop"
    decode_device: str = "cpu"
    decode_threads: int = 1
    repeat: bool = True
    prefetch_factor: int = 2
    checkpoint_every_seconds: float = 60

    def __post_init__(self) -> None:
        check_max_pixels(self.data.max_image_pixels, "data.max_image_pixels")
        if not self.data.worker_timeout > 0:
            raise ConfigError(f"data.worker_timeout is {self.data.worker_timeout}: expected seconds, more than 0")

    @classmethod
    def of(cls, run: RunConfig, **others: Any) -> StreamSettings:
        """Build the settings of a run. others: fields that do not follow from the run."""
        stage, data = run.stage, run.data
        paths = {name: getattr(data, name) for name in ("path", "pack_index", "quarantine")}
        paths = {name: str(Path(value).absolute()) if value else value for name, value in paths.items()}
        return cls(
            data=replace(data, **paths),
            sample_kind=stage.sample_kind,
            seq_length=stage.seq_length,
            micro_batch_size=stage.micro_batch_size,
            tiling=stage.tiling,
            packing=stage.packing,
            segment_multiple=segment_multiple(run),
            seed=run.seed,
            **others,
        )

    def to_plain(self) -> dict[str, Any]:
        """Return a mapping of plain values, which from_plain takes back."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> StreamSettings:
        """Build the settings that to_plain wrote."""
        return cls(**{**values, "data": DataConfig(**values["data"])})

    @property
    def position_keys(self) -> dict[str, Any]:
        """The values that a saved dataloader position depends on."""
        own = "tiling packing micro_batch_size segment_multiple seq_length seed sample_kind".split()
        of_data = (
            "num_workers packing_buffer_size packing_algorithm shuffle_buffer_size max_samples_per_sequence "
            "max_image_pixels"
        ).split()
        return {name: getattr(self, name) for name in own} | {name: getattr(self.data, name) for name in of_data}
