"""Turns as others write them -> our messages: {"role", "content": [{"type": "image"}, {"type": "text", "text"}]}."""

from __future__ import annotations

import json
from typing import Any

from nemo_amalia.data.importing.formats.records import BadRecordError

PLACEHOLDER = "<image>"
ROLES = {
    **{name: "user" for name in ("user", "human")},
    **{name: "assistant" for name in ("assistant", "gpt", "model", "bot", "chatgpt")},
    "system": "system",
}


def text_parts(text: str) -> list[dict[str, str]]:
    """Splits a text at its `<image>`. A line break beside a placeholder goes: chat templates write their own."""
    parts, pieces = [], text.split(PLACEHOLDER)
    for index, piece in enumerate(pieces):
        if index:
            parts.append({"type": "image"})
            piece = piece.removeprefix("\n")
        if index < len(pieces) - 1:
            piece = piece.removesuffix("\n")
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def content_parts(content: Any) -> list[dict[str, str]]:
    """A string, or a list of text and image parts (parquet fills their other fields with None), as parts."""
    if isinstance(content, str):
        return text_parts(content)
    if not isinstance(content, list):
        raise BadRecordError("messages", f"a turn has content of type {type(content).__name__}: expected text or parts")
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image":
            parts.append({"type": "image"})
        elif kind == "text" and isinstance(part.get("text"), str):
            parts += text_parts(part["text"])
        else:
            raise BadRecordError("messages", f"a turn has the part {str(part)[:60]!r}: expected a text or an image")
    return parts


def messages_of(turns: Any) -> list[dict[str, Any]]:
    """[{"role", "content"}] or [{"from", "value"}], or JSON text of such a list -> messages.

    Raises BadRecordError on anything else.
    """
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except ValueError as error:
            raise BadRecordError("messages", f"its turns are text that is no JSON ({error})") from error
    if not isinstance(turns, list) or not turns:
        raise BadRecordError("messages", f"its turns are {str(turns)[:60]!r}: expected a list of turns")
    messages = []
    for turn in turns:
        if not isinstance(turn, dict):
            raise BadRecordError("messages", f"a turn is {str(turn)[:60]!r}: expected an object")
        role = turn.get("role") or turn.get("from")
        if not isinstance(role, str) or role.lower() not in ROLES:
            raise BadRecordError("messages", f"a turn has the role {role!r}: expected one of {', '.join(ROLES)}")
        content = turn["content"] if turn.get("content") is not None else turn.get("value")
        messages.append({"role": ROLES[role.lower()], "content": content_parts(content)})
    return messages


def messages_of_pairs(pairs: Any) -> list[dict[str, Any]]:
    """The Cauldron's `texts`: [{"user", "assistant"}, ...] -> messages."""
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise BadRecordError("messages", f"its texts are {str(pairs)[:60]!r}: expected [{{user, assistant}}, ...]")
    turns = [{"role": role, "content": pair.get(role)} for pair in pairs for role in ("user", "assistant")]
    return messages_of(turns)


def say(role: str, text: str) -> dict[str, Any]:
    """One message of plain text."""
    return {"role": role, "content": text_parts(text)}


def plain_text(message: dict[str, Any]) -> str:
    """The text of a message, without its images."""
    return "".join(part.get("text", "") for part in message["content"])


def match_images(messages: list[dict[str, Any]], count: int, pictures_first: bool = False) -> None:
    """Sees to it that there is a placeholder for each of `count` pictures.

    pictures_first: messages without any placeholder get all of them before the first question, which is what TRL and
    The Cauldron mean by an images column; LLaVA's own files always write `<image>`. Raises BadRecordError otherwise.
    """
    found = sum(part["type"] == "image" for message in messages for part in message["content"])
    if not found and count and pictures_first:
        user = next((message for message in messages if message["role"] == "user"), None)
        if user is not None:
            user["content"] = [{"type": "image"}] * count + user["content"]
            return
    if found != count:
        raise BadRecordError("placeholders", f"has {found} {PLACEHOLDER} placeholders and {count} pictures")


def require_answers(messages: list[dict[str, Any]]) -> None:
    """Raises BadRecordError where there is no assistant turn, or an empty one."""
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise BadRecordError("no_answer", "has no turn of the assistant")
    if not all(plain_text(answer).strip() for answer in answers):
        raise BadRecordError("no_answer", "has an empty turn of the assistant")
