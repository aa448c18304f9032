"""Conversation -> tokens. Only the headers of the images are read here; decoding comes after packing."""

from __future__ import annotations

from nemo_amalia.data.chat import ChatFormat
from nemo_amalia.data.image_geometry import ImageGeometry
from nemo_amalia.data.image_headers import MAX_PIXELS, ImageError, read_header
from nemo_amalia.data.samples import BadSampleError, ConversationSample, TokenizedSample


class ConversationEncoder:
    """Encodes conversations of at most `max_length` tokens.

    tiling off is the paper's stage 1: the thumbnail alone, `tokens_per_tile + 1` tokens an image. max_pixels: of an
    image; a sample with a larger one is refused.
    """

    def __init__(
        self,
        chat: ChatFormat,
        geometry: ImageGeometry,
        max_length: int,
        tiling: bool = True,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.chat = chat
        self.geometry = geometry
        self.max_length = max_length
        self.tiling = tiling
        self.max_pixels = max_pixels

    def __call__(self, sample: ConversationSample) -> TokenizedSample:
        """Raises BadSampleError, naming the sample and the reason."""
        sizes = []
        for index, data in enumerate(sample.images):
            try:
                header = read_header(data, self.max_pixels)
            except ImageError as error:
                raise BadSampleError(f"image {index} of sample {sample.key}: {error}", "image") from error
            sizes.append((header.width, header.height))
        counts = [self.geometry.num_tokens(width, height, self.tiling) for width, height in sizes]
        ids, mask = self.chat.encode(sample.messages, counts, sample.key)
        if len(ids) > self.max_length:
            raise BadSampleError(
                f"sample {sample.key} has {len(ids):,} tokens ({sum(counts):,} of them from {len(sizes)} "
                "images) and "
                f"the pack holds {self.max_length:,}: raise seq_length, allow fewer tiles, or drop long "
                "samples "
                "with on_bad_sample=drop",
                "too_long",
            )
        return TokenizedSample(
            key=sample.key,
            source=sample.source,
            input_ids=ids,
            loss_mask=mask,
            images=sample.images,
            image_sizes=tuple(sizes),
            tiling=self.tiling,
        )
