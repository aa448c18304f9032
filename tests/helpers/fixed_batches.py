"""A training stream that is the same at every layout: fixed conversations, packed or one a row, dealt over DP ranks."""

from dataclasses import dataclass, replace

from megatron.bridge.data.base import DatasetBuildContext, DatasetProvider

SEQ_LENGTH = 288
SAMPLES_A_PACK = 3
# (width, height) of the images of each sample of a pack; the third pack of every four has none at all.
SHAPES = [((64, 64),), (), ((40, 90), (32, 32))]


def samples(geometry, image_token_id: int, vocabulary: int, number: int):
    """``number`` tokenised conversations with tiles, drawn from a seed: [(TokenizedSample, tiles)]."""
    import numpy as np
    import torch

    from nemo_amalia.data.samples import TokenizedSample

    made = []
    for index in range(number):
        random = np.random.default_rng(index)
        pack = index // SAMPLES_A_PACK
        shapes = () if pack % 4 == 2 else SHAPES[index % len(SHAPES)]
        ids = random.integers(4, vocabulary, size=int(random.integers(6, 14))).tolist()
        mask = [int(position > 3) for position in range(len(ids))]
        tiles = []
        for width, height in shapes:
            tokens = geometry.num_tokens(width, height, True)
            ids, mask = [image_token_id] * tokens + ids, [0] * tokens + mask
            count = geometry.num_tiles(width, height, True)
            generator = torch.Generator().manual_seed(1000 * index + width)
            shape = (count, 3, geometry.tile, geometry.tile)
            tiles.append(torch.randint(256, shape, dtype=torch.uint8, generator=generator))
        sample = TokenizedSample(
            key=f"fixed/{index:06d}",
            source="fixed",
            input_ids=np.asarray(ids, dtype=np.int32),
            loss_mask=np.asarray(mask, dtype=np.uint8),
            images=(b"",) * len(shapes),
            image_sizes=tuple(shapes),
            tiling=True,
        )
        made.append((sample, tiles))
    return made


@dataclass
class FixedBatches(DatasetProvider):
    """``packs`` packs of three conversations, or the same conversations one a row, over and over."""

    packs: int = 8
    packing: bool = True
    vocabulary: int = 0
    image_token_id: int = 0
    geometry: object = None
    poison_step: int = 0  # from this micro-batch on, pixels are NaN
    dataloader_type: str | None = "external"

    def build_datasets(self, context: DatasetBuildContext):
        group = context.pg_collection.dp
        return self.stream(group.rank(), group.size()), None, None

    def stream(self, rank: int, size: int):
        groups, count = self.groups(), 0
        while True:
            for index, group in enumerate(groups):
                if index % size == rank:
                    count += 1
                    batch = self.batch(group)
                    if self.poison_step and count >= self.poison_step:
                        batch = replace(batch, image_mean=(float("nan"),) * 3)
                    yield batch

    def groups(self):
        """What each micro-batch is made of."""
        drawn = samples(self.geometry, self.image_token_id, self.vocabulary, self.packs * SAMPLES_A_PACK)
        return grouped(drawn, SAMPLES_A_PACK if self.packing else 1)

    def batch(self, group):
        """One micro-batch."""
        collate = self.collator(SEQ_LENGTH, 4 if self.packing else 1, packing=self.packing)  # 4: what CP=2 needs
        return collate([sample for sample, _ in group], [tiles for _, tiles in group])

    def collator(self, seq_length: int, segment_multiple: int, **more):
        from stream_settings import make_collator

        return make_collator(
            seq_length=seq_length,
            pad_token_id=0,
            image_token_id=self.image_token_id,
            geometry=self.geometry,
            segment_multiple=segment_multiple,
            **more,
        )


def grouped(drawn: list, step: int) -> list:
    """``step`` neighbours at a time."""
    return [drawn[start : start + step] for start in range(0, len(drawn), step)]
