"""A tiny ChatML tokenizer and sample makers for the data tests."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chatml_tokenizer(template: str = CHATML) -> PreTrainedTokenizerFast:
    """Byte-level: every byte is a token, and the special tokens of ChatML."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|im_start|>", "<|im_end|>", "<image>", "<pad>"]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in specials])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
    fast.chat_template = template
    return fast


def picture(width: int, height: int, seed: int = 0, kind: str = "JPEG", **options) -> bytes:
    """A compressed image with structure at several scales."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    pixels = np.asarray(coarse).astype(np.int16) + rng.integers(-20, 21, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def conversation(index: int, images: int = 1, words: int = 3, seed: int = 0) -> dict:
    """A sample as write_shards takes it."""
    rng = np.random.default_rng((seed, index))
    sizes = rng.integers(20, 140, (images, 2))
    return {
        "key": f"s-{index:05d}",
        "messages": [
            {"role": "user", "content": "<image>" * images + f"pergunta {index}?"},
            {"role": "assistant", "content": "resposta " * words + str(index)},
        ],
        "images": [picture(int(w), int(h), index) for w, h in sizes],
        "source": "teste",
        "language": "pt",
    }
