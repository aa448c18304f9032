"""The typed samples of the data path, and the micro-batch.

Legend: B micro-batch size, S sequence length, T tiles of the micro-batch, I images, J images in the text, N segments,
C = 3 channels (RGB), H = W = tile side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from nemo_amalia.utils.errors import DataError


class BadSampleError(DataError):
    """A sample that cannot be trained on; `reason` is one of faults.REASONS, the text names the sample."""

    def __init__(self, message: str, reason: str = "other") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ConversationSample:
    """One conversation as it lies in a shard.

    messages: chat turns, {"role", "content"}; content is a string (every "<image>" in it is an image) or a
        list of {"type": "image"} and {"type": "text", "text": ...}.
    images: compressed bytes, in the order of their placeholders. prompt_turns: messages at the beginning that are not
    learned, whoever says them (the prompt of a preference pair).
    """

    key: str
    messages: list[dict[str, Any]]
    images: tuple[bytes, ...]
    source: str
    language: str
    prompt_turns: int = 0

    @property
    def conversations(self) -> tuple[ConversationSample, ...]:
        """What it is tokenised as."""
        return (self,)


@dataclass(frozen=True, slots=True)
class PreferenceSample:
    """A prompt with two answers to it; prompt, chosen and rejected are chat turns as in ConversationSample.

    images: compressed bytes, in the order of the prompt's placeholders; answers have none.
    """

    key: str
    prompt: list[dict[str, Any]]
    chosen: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    images: tuple[bytes, ...]
    source: str
    language: str

    @property
    def conversations(self) -> tuple[ConversationSample, ...]:
        """(chosen, rejected), each with the prompt before it."""
        return tuple(
            ConversationSample(
                f"{self.key} ({name})",
                [*self.prompt, *answer],
                self.images,
                self.source,
                self.language,
                prompt_turns=len(self.prompt),
            )
            for name, answer in (("chosen", self.chosen), ("rejected", self.rejected))
        )


@dataclass(frozen=True, slots=True)
class TokenizedSample:
    """A conversation as tokens, its images still compressed.

    input_ids: [L] int32, image placeholders already expanded. loss_mask: [L] uint8, 1 where the token itself
    is to be learned. image_sizes: (width, height) of each image in pixels, EXIF orientation applied.
    dataset, shard: where it was read, as FaultBoard counts it.
    """

    key: str
    source: str
    input_ids: np.ndarray
    loss_mask: np.ndarray
    images: tuple[bytes, ...]
    image_sizes: tuple[tuple[int, int], ...]
    tiling: bool
    dataset: str = ""
    shard: str = ""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def segments(self) -> tuple[TokenizedSample, ...]:
        """What it becomes in a pack."""
        return (self,)


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A preference pair as tokens: two neighbouring segments of one pack, with one set of images.

    chosen, rejected: the prompt with its answer, loss on the answer alone. segment_multiple: what the pack pads each
    segment to a multiple of. dataset, shard: as TokenizedSample's.
    """

    key: str
    chosen: TokenizedSample
    rejected: TokenizedSample
    segment_multiple: int = 1
    dataset: str = ""
    shard: str = ""

    def __len__(self) -> int:
        """Tokens of a pack that it takes: both segments, padded."""
        return sum(-(-len(segment) // self.segment_multiple) * self.segment_multiple for segment in self.segments)

    @property
    def segments(self) -> tuple[TokenizedSample, ...]:
        """(chosen, rejected)."""
        return self.chosen, self.rejected

    @property
    def source(self) -> str:
        return self.chosen.source

    @property
    def images(self) -> tuple[bytes, ...]:
        return self.chosen.images

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        return self.chosen.image_sizes

    @property
    def tiling(self) -> bool:
        return self.chosen.tiling


@dataclass(frozen=True, slots=True)
class Pack:
    """Samples, or pairs, that go into one micro-batch together, before their images are decoded."""

    samples: tuple[TokenizedSample | TokenizedPair, ...]

    def __len__(self) -> int:
        return sum(len(sample) for sample in self.samples)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One micro-batch.

    tokens            [B, S] int64, B = 1 when packed
    labels            [B, S] int64: the next token of the same segment; the pad token where there is none
    loss_mask         [B, S] float32, aligned with labels: 1 where the label is learned
    position_ids      [B, S] int64: restart at 0 in every segment
    cu_seqlens        [N + 1] int32 from 0 to S, padding being the last segment(s); None when not packed
    max_seqlen        length of the longest segment (S when not packed)
    tiles             [T, C, H, W] uint8, images in the order of their placeholders, thumbnail first
    image_mean, image_std   what normalises them (images.normalise), a number a channel
    image_sizes       [I, 2] int64: (height, width) of the originals
    tiles_per_image   [I] int64, summing to T
    keys              keys of the samples, in order; one a pair
    num_samples       segments that hold a sample, or pairs; num_image_tokens, num_tokens: without padding
    num_pairs         segments 2i and 2i + 1 are chosen and rejected of pair i; 0: no segment is of a pair
    image_order       [J] int64: which image stands where in the text, in the order of the placeholders (a pair's images
                      stand in both of its segments); None: each image once, in order

    Without images `tiles` is one zero tile and tiles_per_image is empty (docs/architecture.md, Data): the tower
    runs on it with weight 0, so that no rank waits for a gradient that never comes.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    loss_mask: torch.Tensor
    position_ids: torch.Tensor
    cu_seqlens: torch.Tensor | None
    max_seqlen: int
    tiles: torch.Tensor
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    image_sizes: torch.Tensor
    tiles_per_image: torch.Tensor
    keys: list[str]
    num_samples: int
    num_image_tokens: int
    num_tokens: int
    num_pairs: int = 0
    image_order: torch.Tensor | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields by name; no tensor is copied."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PackedBatch:
        """The inverse of to_dict. Raises DataError on a missing or an unknown field."""
        names = {field.name for field in fields(cls)}
        if names != set(values):
            raise DataError(
                f"a PackedBatch has the fields {sorted(names)}; missing: {sorted(names - set(values))}, "
                f"unknown: {sorted(set(values) - names)}"
            )
        return cls(**values)

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes torch sends a file handle a tensor, a millisecond each: only `tiles` are worth one.
        small = {name: value.numpy() for name, value in self.to_dict().items() if name != "tiles" and _on_cpu(value)}
        return _received, (self.to_dict() | small,)

    def map_tensors(self, function) -> PackedBatch:
        """The same batch with `function` applied to each tensor."""
        changed = {name: function(value) for name, value in self.to_dict().items() if isinstance(value, torch.Tensor)}
        return replace(self, **changed)

    def pin_memory(self, device: Any = None) -> PackedBatch:
        """Called by torch's DataLoader in its pinning thread."""
        return self.map_tensors(lambda tensor: tensor.pin_memory())


def _on_cpu(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == "cpu"


def _received(values: dict[str, Any]) -> PackedBatch:
    return PackedBatch(**{k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in values.items()})
