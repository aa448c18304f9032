"""Token ids -> HTML, token by token: what is learned is coloured, special tokens and newlines can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import numpy as np

from nemo_amalia.data.encoding.chat import ChatFormat
from nemo_amalia.data.samples import TokenizedSample

MAX_TOKENS = 1500  # shown of one sample, images not counted
BROKEN = "\N{REPLACEMENT CHARACTER}"  # a token that is a part of a letter decodes to this


class TokenWriter:
    """Writes samples of one tokenizer."""

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

    def html(self, sample: TokenizedSample) -> str:
        """Spans of the sample's tokens, the first MAX_TOKENS of them; what is left out is said."""
        out, shown, rest = [], 0, 0
        for text, kind, learned, tokens in self.pieces(sample.input_ids, sample.loss_mask):
            if shown >= MAX_TOKENS:
                rest += tokens
                continue
            shown += 1
            if kind == "image":
                out.append(f'<span class="image">{escape(text)} × {tokens:,}</span>')
                continue
            name = "special" if kind == "special" else "t"
            body = escape(text).replace("\n", '<span class="nl">⏎</span>\n').replace("\t", '<span class="nl">⇥</span>')
            out.append(f'<span class="{name}{" loss" if learned else ""}">{body or "∅"}</span>')
        if rest:
            out.append(f'<span class="image">… {rest:,} tokens more</span>')
        return "".join(out)
