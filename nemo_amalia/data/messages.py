"""Where the prompt of a preference pair ends: pairs come as two whole conversations, or repeat the prompt."""

from __future__ import annotations

from typing import Any

IMAGE = "<image>"  # how a string writes an image; a list writes {"type": "image"}

Messages = list[dict[str, Any]]


def shared_prompt(one: Messages, other: Messages) -> int:
    """How many messages two conversations have in common before their last answers."""
    longest = max(min(len(one), len(other)) - 1, 0)
    return next((index for index in range(longest) if spoken(one[index]) != spoken(other[index])), longest)


def without_prompt(prompt: Messages, answer: Messages) -> Messages:
    """The answer without the prompt, where it repeats it."""
    repeated = [spoken(message) for message in answer[: len(prompt)]] == [spoken(message) for message in prompt]
    return answer[len(prompt) :] if repeated else answer


def spoken(message: dict[str, Any]) -> tuple[str, str]:
    """(role, text without its images): a prompt may be repeated without them, or as a string instead of parts."""
    content = message["content"]
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    return message["role"], " ".join(str(content).replace(IMAGE, " ").split())
