"""Conversation or preference pair -> tokens. Only headers of images are read here; decoding comes after packing."""

from __future__ import annotations

from nemo_amalia.config.schema import SAMPLE_KINDS
from nemo_amalia.data.encoding.chat import ChatFormat
from nemo_amalia.data.encoding.cookers import cook_conversation, cook_preference
from nemo_amalia.data.images.geometry import ImageGeometry
from nemo_amalia.data.images.headers import MAX_PIXELS, ImageError, read_header
from nemo_amalia.data.samples import (
    BadSampleError,
    ConversationSample,
    PreferenceSample,
    TokenizedPair,
    TokenizedSample,
)
from nemo_amalia.utils.errors import DataError


class ConversationEncoder:
    """Encodes conversations of at most `max_length` tokens.

    tiling off is the paper's stage 1: the thumbnail alone, `tokens_per_tile + 1` tokens an image. max_pixels: of an
    image; a sample with a larger one is refused. cook: a shard's record -> what it encodes.
    """

    cook = staticmethod(cook_conversation)

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
        ids, mask = self.chat.encode(sample.messages, counts, sample.key, sample.context)
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


class PreferenceEncoder:
    """Encodes preference pairs whose two segments, each padded to `segment_multiple`, fit into a pack together.

    The loss is on the answers alone, also where the prompt holds earlier turns of the assistant. `<|im_end|>` is
    learned and the newline after it is not, as in a conversation.
    """

    cook = staticmethod(cook_preference)

    def __init__(self, conversations: ConversationEncoder, segment_multiple: int = 1) -> None:
        self.conversations = conversations
        self.chat = conversations.chat
        self.segment_multiple = segment_multiple

    def __call__(self, sample: PreferenceSample) -> TokenizedPair:
        """Raises BadSampleError, naming the pair and the reason."""
        chosen, rejected = map(self.conversations, sample.conversations)
        if chosen.input_ids.tolist() == rejected.input_ids.tolist():
            raise BadSampleError(
                f"pair {sample.key} has equal answers, chosen and rejected: there is nothing to prefer; drop it",
                "same_answers",
            )
        pair = TokenizedPair(sample.key, chosen, rejected, self.segment_multiple)
        if len(pair) > self.conversations.max_length:
            raise BadSampleError(
                f"pair {sample.key} takes {len(pair):,} tokens (chosen {len(chosen):,}, rejected {len(rejected):,}) "
                f"and the pack holds {self.conversations.max_length:,}: raise seq_length, allow fewer tiles, or drop "
                "long pairs with on_bad_sample=drop",
                "too_long",
            )
        return pair


RecordEncoder = ConversationEncoder | PreferenceEncoder


def encoder_of(sample_kind: str, conversations: ConversationEncoder, segment_multiple: int = 1) -> RecordEncoder:
    """The encoder of a stage's samples. Raises DataError on a word that is none of SAMPLE_KINDS."""
    if sample_kind not in SAMPLE_KINDS:
        raise DataError(f"sample_kind is {sample_kind!r}: expected one of {', '.join(SAMPLE_KINDS)}")
    return conversations if sample_kind == "conversations" else PreferenceEncoder(conversations, segment_multiple)
