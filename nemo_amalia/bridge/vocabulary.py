"""``<image>`` and the chat template of a decoder that has never seen an image."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nemo_amalia.bridge.assets import IMAGE_TOKEN
from nemo_amalia.utils.errors import CheckpointError

logger = logging.getLogger(__name__)

# A vocabulary that grows, grows to a multiple of this: any tensor parallelism up to 128 divides it.
MULTIPLE = 128

# ChatML that takes strings and lists of parts; an image part is the placeholder and a line break.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Place:
    """Where ``<image>`` goes. token_id: its id; rows: of the embeddings afterwards."""

    token_id: int
    rows: int


def place_image_token(tokenizer: Any, rows: int) -> Place:
    """Makes sure the tokenizer has ``<image>`` as one special token; ``rows`` is the embeddings' present size."""
    from tokenizers import AddedToken

    if IMAGE_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if token_id >= rows:
        rows = -(-(token_id + 1) // MULTIPLE) * MULTIPLE
    return Place(token_id, rows)


def grow(embeddings: Tensor, place: Place) -> Tensor:
    """[rows, hidden] with the missing rows added: the mean of the others, so that no logit starts out large."""
    missing = place.rows - embeddings.shape[0]
    if not missing:
        return embeddings
    mean = embeddings.float().mean(0, keepdim=True).to(embeddings.dtype)
    return torch.cat([embeddings, mean.expand(missing, -1)])


def ensure_chat_template(tokenizer: Any, where: str) -> None:
    """Leaves the tokenizer with a template that takes strings and lists with images, and ends turns with its EOS.

    A template that is plain ChatML for text is replaced by CHATML. Raises CheckpointError for any other that cannot
    take images, and when ``eos_token`` does not end a turn (evaluation stops on it alone).
    """
    if not tokenizer.chat_template:
        raise CheckpointError(
            f"the tokenizer of {where} has no chat template: add chat_template.jinja to the folder (ChatML, for AMALIA)"
        )
    if not _takes_images(tokenizer):
        original = tokenizer.chat_template
        talk = [{"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("user", "c"))]
        before = _render(tokenizer, talk)
        tokenizer.chat_template = CHATML
        if before != _render(tokenizer, talk):
            tokenizer.chat_template = original
            raise CheckpointError(
                f"the chat template of {where} does not take a list with an image part and is not plain ChatML: "
                "give it one that writes <image> for each part of type image, and takes strings too"
            )
        logger.warning("the chat template of %s is ChatML for text alone: replaced by ChatML that takes images", where)
    turn = _render(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    if not tokenizer.eos_token or tokenizer.eos_token not in turn:
        raise CheckpointError(
            f"eos_token of {where} is {tokenizer.eos_token!r}, which its chat template does not end a turn with: "
            "set eos_token to the end of a turn (<|im_end|> in ChatML)"
        )


def _render(tokenizer: Any, messages: list[dict]) -> str | None:
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:  # a template may raise anything on content that it was not written for
        return None


def _takes_images(tokenizer: Any) -> bool:
    parts = [{"type": "image"}, {"type": "text", "text": "what?"}]
    listed = _render(tokenizer, [{"role": "user", "content": parts}])
    plain = _render(tokenizer, [{"role": "user", "content": "what?"}])
    good = listed is not None and listed.count(IMAGE_TOKEN) == 1 and "what?" in listed and "'type'" not in listed
    return good and plain is not None and "what?" in plain
