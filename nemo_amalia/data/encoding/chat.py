"""Conversation -> token ids and loss mask, by the tokenizer's own chat template.

The text is tokenised whole, the way transformers' LlavaNextProcessor tokenises a prompt (special tokens added
unless the template already writes the BOS token), so that training and inference see the same ids. What is
learned is found by rendering every prefix of the conversation: an assistant turn is what follows its
generation prompt, up to and including the end-of-turn token; the newline after it is not learned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from nemo_amalia.data.samples import BadSampleError
from nemo_amalia.utils.errors import DataError

CLOSE = (
    "either the template must write it after every answer, or the tokenizer's eos_token must be what the template "
    "writes there"
)


class ChatFormat:
    """Encodes conversations for one tokenizer.

    tokenizer: a fast Hugging Face tokenizer with a chat template. image_token: the placeholder, one token of
    the vocabulary. end_of_turn: the token that closes an assistant turn; by default the tokenizer's EOS token
    (`<|im_end|>` in ChatML: evaluation stops on it alone).
    Raises DataError when the tokenizer lacks one of these.
    """

    def __init__(self, tokenizer: Any, image_token: str = "<image>", end_of_turn: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.image_token = image_token
        self.end_of_turn = end_of_turn or tokenizer.eos_token
        if not getattr(tokenizer, "is_fast", False):
            raise DataError(
                f"the tokenizer is a {type(tokenizer).__name__}, which gives no character offsets: "
                "load a fast one (PreTrainedTokenizerFast, tokenizer.json)"
            )
        if not tokenizer.chat_template:
            raise DataError("the tokenizer has no chat template: add chat_template.jinja to its folder")
        for token, role in ((image_token, "image placeholder"), (self.end_of_turn, "end of turn")):
            if token is None or tokenizer.encode(token, add_special_tokens=False) != [self._id(token)]:
                raise DataError(
                    f"the tokenizer's vocabulary has no single token for the {role} {token!r}: "
                    f"add it with tokenizer.add_special_tokens and save the tokenizer again"
                )
        self.image_token_id = self._id(image_token)
        self.pad_token_id = tokenizer.pad_token_id
        if self.pad_token_id is None:
            self.pad_token_id = self._id(self.end_of_turn)
        specials = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
        specials |= set(tokenizer.all_special_tokens) | {image_token, self.end_of_turn}
        self._special = re.compile("|".join(re.escape(t) for t in sorted(specials, key=len, reverse=True)))

    def _id(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)

    def encode(
        self, messages: Sequence[dict[str, Any]], tokens_per_image: Sequence[int], key: str = "?", prompt_turns: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Token ids [L] int32 and loss mask [L] uint8 of a conversation, image placeholders expanded.

        tokens_per_image: tokens of each image, in the order of the placeholders. key: names the sample in
        errors. prompt_turns: messages at the beginning that are not learned. Raises BadSampleError on:
        malformed messages; a special token inside the text; placeholders that do not match the images; a template
        that is not prefix-stable; nothing to learn.
        """
        self._check_messages(messages, key)
        text, spans = self._render_with_spans(list(messages), key, prompt_turns)
        placeholders = text.count(self.image_token)
        if placeholders != len(tokens_per_image):
            raise BadSampleError(
                f"sample {key} has {placeholders} {self.image_token} placeholders and "
                f"{len(tokens_per_image)} images: "
                "give one placeholder for each image, in order",
                "placeholders",
            )
        return self._tokenise(text, spans, tokens_per_image, key)

    def _tokenise(
        self, text: str, spans: list[tuple[int, int]], tokens_per_image: Sequence[int], key: str
    ) -> tuple[np.ndarray, np.ndarray]:
        bos = self.tokenizer.bos_token
        encoded = self.tokenizer(
            text,
            add_special_tokens=not (bos and text.startswith(bos)),
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        ids = np.asarray(encoded["input_ids"], dtype=np.int32)
        starts, ends = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2).T
        mask = np.zeros(len(ids), dtype=np.uint8)
        for start, end in spans:
            mask[(starts >= start) & (ends <= end) & (ends > starts)] = 1
        is_image = ids == self.image_token_id
        mask[is_image] = 0
        if not mask.any():
            raise BadSampleError(
                f"sample {key} has no token to learn: its assistant turns are missing or empty; "
                "add an answer or drop the sample",
                "no_loss_token",
            )
        repeats = np.ones(len(ids), dtype=np.int64)
        repeats[is_image] = tokens_per_image
        return np.repeat(ids, repeats), np.repeat(mask, repeats)

    def _render(self, messages: list[dict[str, Any]], generation_prompt: bool, key: str) -> str:
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
        except Exception as error:  # jinja raises its own classes, and templates raise what they like
            raise BadSampleError(
                f"sample {key} does not pass the chat template ({type(error).__name__}: {error}): "
                f"its roles are {[m['role'] for m in messages]}",
                "chat_template",
            ) from error

    def _render_with_spans(
        self, messages: list[dict[str, Any]], key: str, prompt_turns: int
    ) -> tuple[str, list[tuple[int, int]]]:
        """The whole text, and the character span of each learned assistant turn with its end-of-turn token."""
        text = self._render(messages, False, key)
        spans = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or index < prompt_turns:
                continue
            prompt = self._render(messages[:index], True, key)
            turn = self._render(messages[: index + 1], False, key)
            if not (turn.startswith(prompt) and text.startswith(turn)):
                raise BadSampleError(
                    f"sample {key}: the chat template renders message {index} differently once later turns "
                    "follow "
                    "(it is not prefix-stable), so the answers cannot be found in the text; use a template "
                    "that "
                    "only ever appends, such as plain ChatML",
                    "chat_template",
                )
            close = turn.rfind(self.end_of_turn, len(prompt))
            if close < 0:
                raise BadSampleError(
                    f"sample {key}: the chat template does not close message {index} with "
                    f"{self.end_of_turn!r}: {CLOSE}",
                    "chat_template",
                )
            if turn[len(prompt) : close].strip():
                spans.append((len(prompt), close + len(self.end_of_turn)))
        return text, spans

    def _check_messages(self, messages: Sequence[dict[str, Any]], key: str) -> None:
        if not messages:
            raise BadSampleError(f"sample {key} has no messages", "messages")
        for index, message in enumerate(messages):
            if not isinstance(message, dict) or "role" not in message or "content" not in message:
                raise BadSampleError(
                    f"message {index} of sample {key} is {str(message)[:80]!r}: expected a dict with role and content",
                    "messages",
                )
            content = message["content"]
            if isinstance(content, str):
                # In a string the placeholder is how images are written; every other special token is an
                # intruder.
                self._refuse_special(content.replace(self.image_token, ""), index, key)
                continue
            if not isinstance(content, list):
                raise BadSampleError(
                    f"message {index} of sample {key} has content of type {type(content).__name__}: "
                    "expected a string or a list of text and image parts",
                    "messages",
                )
            for part in content:
                kind = part.get("type") if isinstance(part, dict) else None
                if kind == "text" and isinstance(part.get("text"), str):
                    self._refuse_special(part["text"], index, key)
                elif kind != "image":
                    raise BadSampleError(
                        f"message {index} of sample {key} has the part {str(part)[:80]!r}: "
                        "expected {'type': 'text', 'text': ...} or {'type': 'image'}",
                        "messages",
                    )

    def _refuse_special(self, text: str, index: int, key: str) -> None:
        found = self._special.search(text)
        if found:
            raise BadSampleError(
                f"message {index} of sample {key} contains the special token {found.group()!r} in its text: "
                "it would "
                "be read as a token and not as words; remove it, and write images as {'type': 'image'} parts",
                "special_token",
            )
