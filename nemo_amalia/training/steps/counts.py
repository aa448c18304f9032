"""What the micro-batches of a step held: samples, tokens, image tokens, tiles. Summed over data-parallel ranks."""

from dataclasses import dataclass, fields

import torch

from nemo_amalia.data.samples import PackedBatch


@dataclass
class StepCounts:
    """Counters of this rank since the last reset; ``capacity`` is what the rows could hold, padding included."""

    samples: int = 0
    tokens: int = 0
    image_tokens: int = 0
    loss_tokens: int = 0
    tiles: int = 0
    capacity: int = 0

    def add(self, batch: PackedBatch) -> None:
        """Count one micro-batch."""
        self.samples += batch.num_samples
        self.tokens += batch.num_tokens
        self.image_tokens += batch.num_image_tokens
        self.loss_tokens += int(batch.loss_mask.sum())
        self.tiles += int(batch.tiles_per_image.sum())
        self.capacity += batch.tokens.numel()

    def take(self, group=None) -> "StepCounts":
        """The sum over ``group``, and start again from zero."""
        mine = torch.tensor([getattr(self, f.name) for f in fields(self)], dtype=torch.int64)
        for f in fields(self):
            setattr(self, f.name, 0)
        if group is not None and group.size() > 1:
            mine = mine.to(torch.cuda.current_device())
            torch.distributed.all_reduce(mine, group=group)
        return StepCounts(*mine.tolist())
