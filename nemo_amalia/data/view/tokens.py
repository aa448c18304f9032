"""Token ids -> pieces of text, token by token, with what is special and what is learned; sample.html.j2 shows them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nemo_amalia.data.encoding.chat import ChatFormat
from nemo_amalia.data.samples import TokenizedSample

MAX_TOKENS = 1500  # shown of one sample, images not counted
BROKEN = "\N{REPLACEMENT CHARACTER}"  # a token that is a part of a letter decodes to this


class TokenReader:
    """Take samples of one tokenizer to pieces."""

    def __init__(self, chat: ChatFormat) -> None:
        self.tokenizer, self.image_id = chat.tokenizer, chat.image_token_id
        self.image_token = chat.image_token
        added = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        self.special = added | set(self.tokenizer.all_special_ids)
        # SentencePiece-like decoders drop the space before the first word: a word before it keeps the space.
        self._anchor = self.tokenizer.encode("a", add_special_tokens=False)[-1:]
        self._start = len(self._decode(self._anchor))
        self._known: dict[tuple[int, ...], str] = {}

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _text(self, ids: tuple[int, ...]) -> str:
        if ids not in self._known:
            self._known[ids] = self._decode([*self._anchor, *ids])[self._start :]
        return self._known[ids]

    def pieces(self, ids: np.ndarray, mask: np.ndarray) -> Iterator[tuple[str, str, bool, int]]:
        """(text, kind, learned, tokens) in order; kind is text, special or image. Their tokens sum to len(ids).

        Tokens that are parts of one letter come as one piece, and so do the placeholders of neighbouring images.
        """
        index, values = 0, ids.tolist()
        while index < len(values):
            stop = index + 1
            if values[index] == self.image_id:
                while stop < len(values) and values[stop] == self.image_id:
                    stop += 1
                yield self.image_token, "image", False, stop - index
            elif values[index] in self.special:
                yield self.tokenizer.convert_ids_to_tokens(values[index]), "special", bool(mask[index]), 1
            else:
                while (
                    self._text(tuple(values[index:stop])).endswith(BROKEN)
                    and stop < min(len(values), index + 4)  # a letter has at most four bytes
                    and values[stop] not in self.special
                    and values[stop] != self.image_id
                ):
                    stop += 1
                yield self._text(tuple(values[index:stop])), "text", bool(mask[index:stop].all()), stop - index
            index = stop

    def shown(self, sample: TokenizedSample) -> tuple[list[tuple[str, str, bool, int]], int]:
        """Return the first MAX_TOKENS pieces, and the number of tokens in the pieces left out."""
        pieces = list(self.pieces(sample.input_ids, sample.loss_mask))
        return pieces[:MAX_TOKENS], sum(tokens for *_, tokens in pieces[MAX_TOKENS:])
