"""Raw WebDataset records -> ConversationSample or PreferenceSample.

A record is `key.json` = {"messages": [...], "source": "...", "language": "..."} with its images beside it as
`key.0.jpg`, `key.1.png`, ... in the order of their placeholders, or a single `key.jpg`. Of a preference pair the
messages are the prompt, and "chosen" and "rejected" are the messages that answer it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nemo_amalia.data.messages import IMAGE, Messages, shared_prompt, spoken, without_prompt
from nemo_amalia.data.samples import BadSampleError, ConversationSample, PreferenceSample

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")


def sample_key(record: Mapping[str, Any]) -> str:
    """`shard.tar/key` where Energon says which shard it was, else the key: what errors and logs call a
    sample.
    """
    key, sources = record["__key__"], record.get("__sources__")
    return f"{sources[0].shard_name}/{key.rsplit('/', 1)[-1]}" if sources else key


def cook_conversation(record: Mapping[str, Any]) -> ConversationSample:
    """Raises BadSampleError on a record without a readable json, on a preference pair (of which only the prompt would
    be read), and on images whose numbers have gaps.
    """
    key = sample_key(record)
    content = _content(record, key, ("messages",))
    if is_pair(content):
        raise BadSampleError(
            f"sample {key} is a preference pair, with chosen and rejected: train on it with stage=dpo, "
            "or give a folder of conversations",
            "record",
        )
    return ConversationSample(
        key=key,
        messages=content["messages"],
        images=_ordered_images(record, key),
        source=str(content.get("source", "")),
        language=str(content.get("language", "")),
    )


def cook_preference(record: Mapping[str, Any]) -> PreferenceSample:
    """Answers that repeat the prompt are taken without it.

    Raises BadSampleError as cook_conversation does, on a record that is no pair, on answers that are empty, and on
    answers to different prompts.
    """
    key = sample_key(record)
    content = _content(record, key, ("chosen", "rejected"))
    prompt, chosen, rejected = (
        _checked(content.get(name) or [], name, key) for name in ("messages", "chosen", "rejected")
    )
    if not prompt:  # both are whole conversations
        shared = shared_prompt(chosen, rejected)
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    else:
        chosen, rejected = without_prompt(prompt, chosen), without_prompt(prompt, rejected)
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        _check_answer(name, answer, key)
    last = prompt[-1]["role"] if prompt else "nobody"
    if last != "user":
        raise BadSampleError(f"the prompt of pair {key} ends with a turn of {last!r}: expected the user's", "messages")
    return PreferenceSample(
        key=key,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        images=_ordered_images(record, key),
        source=str(content.get("source", "")),
        language=str(content.get("language", "")),
    )


def cook_either(record: Mapping[str, Any]) -> ConversationSample | PreferenceSample:
    """Whichever the record is, for reading a folder without training on it. Raises BadSampleError as the two do."""
    key = sample_key(record)
    return cook_preference(record) if is_pair(_content(record, key, ())) else cook_conversation(record)


def is_pair(content: Mapping[str, Any]) -> bool:
    """Whether the json of a sample is that of a preference pair."""
    return "chosen" in content and "rejected" in content


def _content(record: Mapping[str, Any], key: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    """The sample's json, which has the fields `names`."""
    if "json" not in record:
        parts = sorted(name for name in record if not name.startswith("__"))
        raise BadSampleError(f"sample {key} has no json part, only {parts}: write it with write_shards", "record")
    raw = record["json"]
    try:
        content = json.loads(raw) if isinstance(raw, bytes | str) else raw
        if not isinstance(content, Mapping):
            raise TypeError(f"it is a {type(content).__name__}")
        missing = [name for name in names if name not in content]
        if missing:
            raise KeyError(", ".join(missing))
    except (ValueError, KeyError, TypeError) as error:
        form = '"messages": [...], "chosen": [...], "rejected": [...]' if "chosen" in names else '"messages": [...]'
        raise BadSampleError(
            f"the json of sample {key} cannot be used ({type(error).__name__}: {error}): "
            f'expected {{{form}, "source": "...", "language": "..."}}',
            "record",
        ) from error
    return content


def _checked(messages: Any, name: str, key: str) -> Messages:
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and "content" in message
        for message in messages
    ):
        raise BadSampleError(
            f"{name!r} of pair {key} is {str(messages)[:80]!r}: expected a list of messages with role and content",
            "messages",
        )
    return messages


def _check_answer(name: str, answer: Messages, key: str) -> None:
    if answer and answer[0]["role"] != "assistant":
        role, text = spoken(answer[0])
        raise BadSampleError(
            f"chosen and rejected of pair {key} do not answer one prompt: {name} has the {role}'s turn {text[:60]!r}, "
            "which is not the prompt's; give both the same prompt, or their answers alone",
            "other_prompt",
        )
    texts = [spoken(message)[1] for message in answer if message["role"] == "assistant"]
    if not texts or not all(text.strip() for text in texts):
        raise BadSampleError(
            f"the {name} answer of pair {key} is missing or empty: there is nothing to compare; drop it", "no_answer"
        )
    placed = sum(_images(message) for message in answer)
    if placed:
        raise BadSampleError(
            f"the {name} answer of pair {key} has {placed} {IMAGE} placeholders: images belong to the prompt, which "
            "both answers share",
            "placeholders",
        )


def _images(message: dict[str, Any]) -> int:
    content = message["content"]
    if isinstance(content, list):
        return sum(isinstance(part, dict) and part.get("type") == "image" for part in content)
    return str(content).count(IMAGE)


def _ordered_images(record: Mapping[str, Any], key: str) -> tuple[bytes, ...]:
    numbered: dict[int, bytes] = {}
    for name, data in record.items():
        head, _, suffix = name.rpartition(".")
        if name.startswith("__") or suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if head and not head.isdigit():
            raise BadSampleError(f"sample {key} has an image part {name!r}: expected 0.jpg, 1.png, ...", "record")
        number = int(head) if head else 0
        if number in numbered:
            raise BadSampleError(f"sample {key} has two images numbered {number}: number them 0, 1, ...", "record")
        numbered[number] = data
    if sorted(numbered) != list(range(len(numbered))):
        expected = f"expected 0 to {len(numbered) - 1}"
        raise BadSampleError(f"sample {key} has images numbered {sorted(numbered)}: {expected}", "record")
    return tuple(numbered[number] for number in sorted(numbered))
