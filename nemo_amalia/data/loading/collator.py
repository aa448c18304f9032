"""Tokenised samples, or pairs, and their tiles -> one micro-batch. Everything is checked here, on the host.

A check inside the model's forward would synchronise the GPU at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from nemo_amalia.data.images.geometry import ImageGeometry
from nemo_amalia.data.loading.energon_internals import shared_storage
from nemo_amalia.data.packing.algorithms import padded_length
from nemo_amalia.data.samples import PackedBatch, TokenizedPair, TokenizedSample
from nemo_amalia.data.settings import StreamSettings
from nemo_amalia.utils.errors import ConfigError, DataError


class Collator:
    """Builds PackedBatch.

    seq_length: S. segment_multiple: every segment is padded to it (2 * CP when CP > 1, so that the zigzag of
    context parallelism cuts each segment evenly); it must divide S. micro_batch_size: rows of an unpacked
    batch. image_mean, image_std: of each channel, for pixels scaled to 0..1 (SigLIP's unless given).
    share_pair_images: off repeats a pair's tiles, once for each of its segments.
    """

    def __init__(
        self,
        *,
        pad_token_id: int,
        image_token_id: int,
        geometry: ImageGeometry,
        settings: StreamSettings,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        seq_length, segment_multiple = settings.seq_length, settings.segment_multiple
        packing, micro_batch_size = settings.packing, settings.micro_batch_size
        if seq_length % segment_multiple:
            raise ConfigError(
                f"seq_length {seq_length} is not a multiple of {segment_multiple} (2 * context parallel "
                "size): "
                f"use {padded_length(seq_length, segment_multiple)}"
            )
        if packing and micro_batch_size != 1:
            raise ConfigError(
                f"micro_batch_size is {micro_batch_size} with packing: a pack is a micro-batch of 1; raise "
                "seq_length to put more samples into it, or set packing off"
            )
        self.seq_length = seq_length
        self.pad_token_id = pad_token_id
        self.image_token_id = image_token_id
        self.geometry = geometry
        self.segment_multiple = segment_multiple
        self.packing = packing
        self.micro_batch_size = micro_batch_size
        self.image_mean, self.image_std = tuple(image_mean), tuple(image_std)
        self.share_pair_images = settings.data.share_pair_images

    def __call__(
        self, items: Sequence[TokenizedSample] | Sequence[TokenizedPair], tiles: Sequence[Sequence[torch.Tensor]]
    ) -> PackedBatch:
        """items: all samples, or all pairs. tiles: for each of them, for each of its images, uint8 [n, C, H, W].

        Raises DataError with both numbers when the text, the geometry and the tiles disagree, and when the
        samples do not fit.
        """
        pairs = sum(isinstance(item, TokenizedPair) for item in items)
        if pairs and (pairs < len(items) or not self.packing):
            raise DataError(f"{pairs} of {len(items)} items are pairs: only packs, and of pairs alone, hold any")
        for item, images in zip(items, tiles, strict=True):
            for segment in item.segments:
                self._check(segment, images)
        samples = [segment for item in items for segment in item.segments]
        spans = self._place(samples)
        rows = 1 if self.packing else self.micro_batch_size
        size = rows * self.seq_length
        tokens = np.full(size, self.pad_token_id, dtype=np.int64)
        labels = np.full(size, self.pad_token_id, dtype=np.int64)
        mask = np.zeros(size, dtype=np.float32)
        positions = np.tile(np.arange(self.seq_length, dtype=np.int64), rows)
        for sample, (start, end) in zip(samples, spans, strict=True):
            last = start + len(sample)
            tokens[start:last] = sample.input_ids
            labels[start : last - 1] = sample.input_ids[1:]
            mask[start : last - 1] = sample.loss_mask[1:]
            positions[start:end] = np.arange(end - start)
        cu_seqlens, longest = None, self.seq_length
        if self.packing:
            bounds = self._bounds(spans)
            cu_seqlens, longest = torch.from_numpy(bounds), int(np.diff(bounds).max())
            tail = bounds[len(samples) :]
            for start, end in zip(tail[:-1], tail[1:], strict=True):
                positions[start:end] = np.arange(end - start)
        fields = {"tokens": tokens, "labels": labels, "loss_mask": mask, "position_ids": positions}
        return PackedBatch(
            **{name: torch.from_numpy(values).view(rows, self.seq_length) for name, values in fields.items()},
            cu_seqlens=cu_seqlens,
            max_seqlen=longest,
            **self._vision(items, tiles),
            keys=[item.key for item in items],
            num_samples=len(items),
            num_pairs=pairs,
            num_image_tokens=sum(int((s.input_ids == self.image_token_id).sum()) for s in samples),
            num_tokens=sum(len(sample) for sample in samples),
        )

    def _place(self, samples: Sequence[TokenizedSample]) -> list[tuple[int, int]]:
        """(start, end) of each sample in the flattened batch, padding of its segment included."""
        if not samples:
            raise DataError("a micro-batch needs at least one sample")
        if not self.packing:
            too_long = [s for s in samples if len(s) > self.seq_length]
            if too_long or len(samples) > self.micro_batch_size:
                raise DataError(
                    f"{len(samples)} samples, the longest of {max(map(len, samples)):,} tokens, do not fit "
                    "into "
                    f"{self.micro_batch_size} rows of {self.seq_length:,}"
                )
            return [(i * self.seq_length, (i + 1) * self.seq_length) for i in range(len(samples))]
        ends = np.cumsum([padded_length(len(sample), self.segment_multiple) for sample in samples])
        if ends[-1] > self.seq_length:
            raise DataError(
                f"the pack of {[s.key for s in samples][:3]}... needs {ends[-1]:,} tokens and holds "
                f"{self.seq_length:,}: pack with the same seq_length and segment_multiple as the collator"
            )
        starts = [0, *ends[:-1].tolist()]
        return list(zip(starts, ends.tolist(), strict=True))

    def _bounds(self, spans: list[tuple[int, int]]) -> np.ndarray:
        """cu_seqlens: the padding at the end is cut into pieces no longer than the longest sample.

        One long padding segment would be the most expensive attention of a half-empty pack, and would set
        max_seqlen.
        """
        longest = max(end - start for start, end in spans)
        used = spans[-1][1]
        bounds = [0, *(end for _, end in spans), *range(used + longest, self.seq_length, longest)]
        if bounds[-1] < self.seq_length:
            bounds.append(self.seq_length)
        return np.asarray(bounds, dtype=np.int32)

    def _vision(self, items: Sequence[Any], tiles: Sequence[Sequence[torch.Tensor]]) -> dict[str, Any]:
        order = None
        if any(isinstance(item, TokenizedPair) for item in items):
            if self.share_pair_images:
                order = _order_of_pairs(tiles)
            else:
                tiles = [group for group in tiles for _ in range(2)]
                items = [segment for item in items for segment in item.segments]
        images = [image for group in tiles for image in group]
        side = self.geometry.tile
        sizes = [(height, width) for item in items for width, height in item.image_sizes]
        return {
            "tiles": _joined(images or [torch.zeros(1, 3, side, side, dtype=torch.uint8)]),
            "image_mean": self.image_mean,
            "image_std": self.image_std,
            "image_sizes": torch.tensor(sizes, dtype=torch.int64).view(-1, 2),
            "tiles_per_image": torch.tensor([len(image) for image in images], dtype=torch.int64),
            "image_order": order,
        }

    def _check(self, sample: TokenizedSample, tiles: Sequence[torch.Tensor]) -> None:
        if len(tiles) != len(sample.image_sizes):
            raise DataError(f"sample {sample.key} has {len(sample.image_sizes)} images and {len(tiles)} were decoded")
        counts = [self.geometry.num_tokens(w, h, sample.tiling) for w, h in sample.image_sizes]
        in_text = int((sample.input_ids == self.image_token_id).sum())
        if in_text != sum(counts):
            raise DataError(
                f"the images of sample {sample.key} need {sum(counts):,} tokens {counts} and its text has "
                f"{in_text:,} "
                "placeholders: it was tokenised with another geometry (pinpoints, tile, patch or tiling); "
                "encode it "
                "again with the model's"
            )
        for index, ((width, height), image) in enumerate(zip(sample.image_sizes, tiles, strict=True)):
            expected = (
                self.geometry.num_tiles(width, height, sample.tiling),
                3,
                self.geometry.tile,
                self.geometry.tile,
            )
            if tuple(image.shape) != expected:
                raise DataError(
                    f"image {index} of sample {sample.key} ({width}x{height}) gave tiles "
                    f"{list(image.shape)} and the "
                    f"geometry expects {list(expected)}: decode it with the model's geometry"
                )


def _order_of_pairs(tiles: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    """Each pair's images twice: in the text of its chosen segment, and in that of its rejected one."""
    order: list[int] = []
    first = 0
    for group in tiles:
        order += [*range(first, first + len(group))] * 2
        first += len(group)
    return torch.tensor(order, dtype=torch.int64)


def _joined(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tiles of all images, channels_last; in a worker in shared memory at once, as torch's default_collate does."""
    first, count = images[0], sum(map(len, images))
    _, channels, height, width = first.shape
    if get_worker_info() is None:
        tiles = first.new_empty(count, height, width, channels)
    else:
        storage = shared_storage(count * first[0].numel())
        tiles = first.new_empty(0).set_(storage).view(count, height, width, channels)
    return torch.cat(list(images), out=tiles.permute(0, 3, 1, 2))
