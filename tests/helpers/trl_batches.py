"""What TRL's collator gave, as a training stream of ours: packs of one pair. Imported in ranks, where Megatron is."""

from dataclasses import dataclass

from megatron.bridge.data.base import DatasetProvider

SEQ_LENGTH = 640


@dataclass
class TRLBatches(DatasetProvider):
    """A stream of what TRL's collator gave, as packs of one pair."""

    batches: list | None = None
    geometry: object = None
    image_token_id: int = 0
    dataloader_type: str | None = "external"

    def build_datasets(self, context):
        return self.stream(), None, None

    def stream(self):
        for batch in self.batches:
            pairs = len(batch["input_ids"]) // 2
            for index in range(pairs):
                yield self.pack(batch, index, pairs)

    def pack(self, batch, index, pairs):
        from fixed_pairs import collated
        from stream_settings import make_collator

        collate = make_collator(
            seq_length=SEQ_LENGTH, pad_token_id=0, image_token_id=self.image_token_id, geometry=self.geometry
        )
        answers = [self.answer(batch, index + side * pairs) for side in (0, 1)]
        return collated(collate, [((answers[0][0], answers[1][0]), answers[0][1])])

    def answer(self, batch, row):
        """(TokenizedSample, tiles) of one row; the pixels are TRL's own, as the bytes that they came from."""
        import numpy as np

        from nemo_amalia.data.samples import TokenizedSample

        real = batch["attention_mask"][row].bool()
        tokens = [int((ids == self.image_token_id).sum()) for ids in batch["input_ids"]]
        sizes = [(int(w), int(h)) for h, w in batch["image_sizes"]]
        first, owner = 0, 0  # images of the rows before
        while owner < row:
            first, owner = first + self.images_in(sizes[first:], tokens[owner]), owner + 1
        own = range(first, first + self.images_in(sizes[first:], tokens[row]))
        tiles = []
        for image in own:
            pixels = batch["pixel_values"][image][: self.geometry.num_tiles(*sizes[image], True)] * 127.5 + 127.5
            tiles.append(pixels.round().byte())
            assert (pixels - pixels.round()).abs().max() < 1e-3
        sample = TokenizedSample(
            key=f"trl/{row} (chosen)",
            source="trl",
            input_ids=batch["input_ids"][row][real].numpy().astype(np.int32),
            loss_mask=batch["completion_mask"][row][real].numpy().astype(np.uint8),
            images=(b"",) * len(own),
            image_sizes=tuple(sizes[image] for image in own),
            tiling=True,
        )
        return sample, tiles

    def images_in(self, sizes, tokens):
        """How many of the next images make up this many tokens."""
        for number, (width, height) in enumerate(sizes, start=1):
            tokens -= self.geometry.num_tokens(width, height, True)
            if not tokens:
                return number
        raise AssertionError("TRL's tokens fit no whole number of images")
