"""A conversation as the texts that a translator gets, and back.

What needs no model is settled here: texts without words, lone option letters, answers that a data set keeps, yes and
no. An answer that is one of the question's options, word for word, follows the option's translation.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_prep.translation import formats
from data_prep.translation.spans import Masked, mask
from nemo_amalia.utils.errors import DataError

FIELDS = ("messages", "chosen", "rejected")
ASSISTANT = ("translate", "keep")


@dataclass(frozen=True, slots=True)
class Segment:
    """One text. places: where in the sample it stands (equal texts of one role are one segment). masked: what the model
    sees. settled: its translation, when no model is needed, and why: `rule`. follows: (segment, option) whose
    translation an answer takes."""

    text: str
    role: str
    places: tuple[tuple[Any, ...], ...]
    masked: Masked
    settled: str | None = None
    rule: str = ""
    follows: tuple[int, int] | None = None


def split(sample: Mapping[str, Any], assistant: str = "translate", quotes: bool = False) -> list[Segment]:
    """The segments of a sample, in the order of the conversation.

    assistant: "keep" leaves every assistant turn as it is (OCR sets: the picture's text is the answer). quotes: what
    stands in quotation marks is kept. Raises DataError on a sample that is not a conversation.
    """
    if assistant not in ASSISTANT:
        raise DataError(f"assistant={assistant!r}; expected one of {ASSISTANT}")
    found: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for place, role, text in _texts(sample):
        found.setdefault((role, text), []).append(place)
    segments = []
    for (role, text), places in found.items():
        masked = mask(text, quotes)
        settled, rule = _settle(text, role, masked, assistant)
        follows = _option(text, segments) if role == "assistant" and settled is None else None
        segments.append(Segment(text, role, tuple(places), masked, settled, rule, follows))
    return segments


def as_option(answer: str, translated: str) -> str:
    """A translated option as the answer writes it: its first letter's case, its full stop, its white space."""
    word = translated.strip().rstrip(".")
    first = word[:1].upper() if answer.strip()[:1].isupper() else word[:1]
    begin, end = answer[: len(answer) - len(answer.lstrip())], answer[len(answer.rstrip()) :]
    return f"{begin}{first}{word[1:]}{'.' if answer.rstrip().endswith('.') else ''}{end}"


def _option(text: str, before: list[Segment]) -> tuple[int, int] | None:
    """(segment, option) of the latest question that has this text as an option and is to be translated."""
    for index in range(len(before) - 1, -1, -1):
        found = [option.casefold().strip(" .") for _, option in formats.options(before[index].text)]
        if before[index].settled is None and text.casefold().strip(" .\n") in found:
            return index, found.index(text.casefold().strip(" .\n"))
    return None


def join(sample: Mapping[str, Any], translations: Mapping[tuple[Any, ...], str]) -> dict[str, Any]:
    """A copy of the sample with other texts, by place; images are shared, nothing else of it changes."""
    result = {name: copy.deepcopy(value) if name in FIELDS else value for name, value in sample.items()}
    for place, text in translations.items():
        *path, last = place
        holder: Any = result
        for step in path:
            holder = holder[step]
        holder[last] = text
    return result


def _texts(sample: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], str, str]]:
    for name in FIELDS:
        for index, message in enumerate(sample.get(name) or ()):
            content = message.get("content") if isinstance(message, Mapping) else None
            if isinstance(content, str):
                yield (name, index, "content"), message["role"], content
            elif isinstance(content, list):
                for part_index, part in enumerate(content):
                    if part.get("type") == "text":
                        yield (name, index, "content", part_index, "text"), message["role"], part["text"]
            else:
                raise DataError(
                    f"sample {sample.get('key')}: {name}[{index}] is {str(message)[:80]!r}; "
                    "expected a role and content, a string or a list of parts"
                )


def _settle(text: str, role: str, masked: Masked, assistant: str) -> tuple[str | None, str]:
    if role == "assistant" and assistant == "keep":
        return text, "answer_kept"
    if role == "assistant" and formats.LETTER.fullmatch(text.strip()):
        return text, "option_letter"
    if all(span.kind != "instruction" for span in masked.spans) and not _words(masked.text):
        return text, "no_words"
    if role == "assistant" and (short := formats.short_answer(text)):
        return short, "yes_no"
    if not _words(masked.text):  # nothing but instructions, which have their fixed form
        put = iter(span.put for span in masked.spans)
        return re.sub(r"⟦\d+⟧", lambda _: next(put), masked.text), "instruction"
    return None, ""


def _words(text: str) -> list[str]:
    """Words of at least two letters, or one that is a word ("a", "I"); units beside a number are not words."""
    plain = re.sub(r"\d[\s\u00a0]?(?:km|cm|mm|kg|mg|ml|ft|lb|oz|Hz|px|m|g|l|s|h)\b", " ", text)
    return re.findall(r"[^\W\d_]{2,}|\b[aI]\b", plain)
