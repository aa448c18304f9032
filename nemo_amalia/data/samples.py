"""The typed samples of the data path, and the micro-batch.

Legend: B micro-batch size, S sequence length, T tiles of the micro-batch, I images, N segments,
C = 3 channels (RGB), H = W = tile side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch


class BadSampleError(ValueError):
    """A sample that cannot be trained on; `reason` is one of faults.REASONS, the text names the sample."""

    def __init__(self, message: str, reason: str = "other") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ConversationSample:
    """One conversation as it lies in a shard.

    messages: chat turns, {"role", "content"}; content is a string (every "<image>" in it is an image) or a
        list of {"type": "image"} and {"type": "text", "text": ...}.
    images: compressed bytes, in the order of their placeholders.
    """

    key: str
    messages: list[dict[str, Any]]
    images: tuple[bytes, ...]
    source: str
    language: str


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


@dataclass(frozen=True, slots=True)
class Pack:
    """Samples that go into one micro-batch together, before their images are decoded."""

    samples: tuple[TokenizedSample, ...]

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
    keys              keys of the samples, in order
    num_samples       segments that hold a sample; num_image_tokens, num_tokens: without padding

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
        """The inverse of to_dict. Raises ValueError on a missing or an unknown field."""
        names = {field.name for field in fields(cls)}
        if names != set(values):
            raise ValueError(
                f"a PackedBatch has the fields {sorted(names)}; missing: {sorted(names - set(values))}, "
                f"unknown: {sorted(set(values) - names)}"
            )
        return cls(**values)

    def map_tensors(self, function) -> PackedBatch:
        """The same batch with `function` applied to each tensor."""
        changed = {name: function(value) for name, value in self.to_dict().items() if isinstance(value, torch.Tensor)}
        return replace(self, **changed)

    def pin_memory(self, device: Any = None) -> PackedBatch:
        """Called by torch's DataLoader in its pinning thread."""
        return self.map_tensors(lambda tensor: tensor.pin_memory())
