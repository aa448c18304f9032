"""Preference pairs that are the same at every layout: fixed_batches, with neighbouring segments chosen and rejected."""

from dataclasses import dataclass, replace

from fixed_batches import SHAPES, FixedBatches, grouped

PAIRS_A_PACK, SEQ_LENGTH = 2, 576
END = 2  # <|im_end|> of tests.tiny_hf


def pairs(geometry, image_token_id: int, vocabulary: int, number: int):
    """``number`` pairs drawn from a seed, answers of differing lengths and whole: [((chosen, rejected), tiles)]."""
    import numpy as np
    import torch

    from nemo_amalia.data.samples import TokenizedSample

    made = []
    for index in range(number):
        random = np.random.default_rng(index)
        shapes = () if index // PAIRS_A_PACK % 4 == 2 else SHAPES[index % len(SHAPES)]
        prompt, tiles = [], []
        for width, height in shapes:
            prompt += [image_token_id] * geometry.num_tokens(width, height, True)
            generator = torch.Generator().manual_seed(1000 * index + width)
            shape = (geometry.num_tiles(width, height, True), 3, geometry.tile, geometry.tile)
            tiles.append(torch.randint(256, shape, dtype=torch.uint8, generator=generator))
        prompt += random.integers(4, vocabulary, size=int(random.integers(3, 6))).tolist()
        answers = []
        for name in ("chosen", "rejected"):
            answer = [*random.integers(4, vocabulary, size=int(random.integers(3, 9))).tolist(), END]
            sample = TokenizedSample(
                key=f"pair/{index:06d} ({name})",
                source="fixed",
                input_ids=np.asarray(prompt + answer, dtype=np.int32),
                loss_mask=np.asarray([0] * len(prompt) + [1] * len(answer), dtype=np.uint8),
                images=(b"",) * len(shapes),
                image_sizes=tuple(shapes),
                tiling=True,
            )
            answers.append(sample)
        made.append((tuple(answers), tiles))
    return made


@dataclass
class FixedPairs(FixedBatches):
    """``packs`` packs of two pairs, or the same pairs one a pack, over and over; images once for each answer."""

    lost_pack: int | None = None  # this one has no pair left, as of an index whose images cannot be decoded

    def groups(self):
        drawn = pairs(self.geometry, self.image_token_id, self.vocabulary, self.packs * PAIRS_A_PACK)
        found = grouped(drawn, PAIRS_A_PACK if self.packing else 1)
        return [[] if index == self.lost_pack else group for index, group in enumerate(found)]

    def batch(self, group):
        from nemo_amalia.data.loading.index_stream import empty_batch

        collate = self.collator(SEQ_LENGTH, 4)  # 4: what CP=2 needs, at every layout
        return collated(collate, group) if group else empty_batch(collate)


def collated(collate, group):
    """One micro-batch of pairs."""
    samples = [sample for answers, _ in group for sample in answers]
    batch = collate(samples, [tiles for _, tiles in group for _ in range(2)])
    keys = [answers[0].key.removesuffix(" (chosen)") for answers, _ in group]
    return replace(batch, keys=keys, num_samples=len(group), num_pairs=len(group))
