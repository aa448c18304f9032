"""Reads a finished sample as a stranger would: what the images show (the renderer's record, not the source's text),
what is asked, and whether the answer, read back from its format, is the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_prep.pipelines.pt_ocr.candidates import squeezed
from data_prep.pipelines.pt_ocr.formats import FORMATS, Verdict
from data_prep.text.sentences import sentences
from nemo_amalia.data.shards.write import image_suffix


def fault(sample: Mapping[str, Any]) -> str | None:
    """What is wrong with a sample, None where nothing is.

    sample: "messages", "images", and "record": {"pages": [{"lines", "joints", "sentences"}], "turns": [facts]}.
    """
    record, messages = sample["record"], sample["messages"]
    shown = ["".join(j + line for j, line in zip(p["joints"], p["lines"], strict=True)) for p in record["pages"]]
    placed = sum(part["type"] == "image" for message in messages for part in message["content"])
    if placed != len(sample["images"]) or len(messages) != 2 * len(record["turns"]) or not messages:
        return f"{placed} placeholders, {len(sample['images'])} images, {len(messages)} messages"
    for data in sample["images"]:
        image_suffix(data)
    for number, facts in enumerate(record["turns"]):
        question, answer = (_text(messages[2 * number + n]) for n in (0, 1))
        try:
            said = FORMATS[facts["task"]][facts["format"]].read(answer)
        except (ValueError, KeyError, IndexError, StopIteration, TypeError, SyntaxError) as error:
            return f"turn {number}: the answer is not {facts['format']} ({type(error).__name__})"
        if wrong := _CHECKS[facts["task"]](facts, said, question, shown, record["pages"]):
            return f"turn {number} ({facts['task']}, {facts['format']}): {wrong}"
    return None


def _text(message: Mapping[str, Any]) -> str:
    return "".join(part.get("text", "") for part in message["content"])


def _transcription(facts: dict, said: Any, question: str, shown: list[str], pages: list[dict]) -> str | None:
    wanted = shown if facts["target"] is None else [shown[facts["target"]]]
    return None if said == wanted else f"{said!r:.80} is not what is shown"


def _marked(facts: dict, shown: list[str], pages: list[dict]) -> list[str] | None:
    """The sentences of the page asked about, as its source marks them, if the splitter and the image agree."""
    marked, text = pages[facts["target"]]["sentences"], shown[facts["target"]]
    if marked is None or "".join(text.split()) != "".join("".join(marked).split()):
        return None
    return marked if [s for block in text.split("\n\n") for s in sentences(block)] == marked else None


def _sentence(facts: dict, said: Any, question: str, shown: list[str], pages: list[dict]) -> str | None:
    marked = _marked(facts, shown, pages)
    if marked is None:
        return "the sentences marked in the source are others"
    place = {"first": 0, "last": -1}.get(facts["which"], facts["n"])
    return None if said == marked[place] else f"{said!r:.80} is not sentence {place}"


def _count(facts: dict, said: Any, question: str, shown: list[str], pages: list[dict]) -> str | None:
    marked = _marked(facts, shown, pages)
    return None if marked is not None and said == len(marked) else f"{said} is not the number of sentences"


def _hallucination(facts: dict, said: Verdict, question: str, shown: list[str], pages: list[dict]) -> str | None:
    text = shown[facts["target"]]
    if facts["candidate"] not in question:
        return "the candidate is not in the question"
    same, near = facts["candidate"] == text, squeezed(facts["candidate"]) == squeezed(text)
    if same != near:
        return "the candidate differs in spacing or punctuation alone"
    if said.right != same or (not same and said.text != text):
        return "the verdict or the corrected text is wrong"
    return None


_CHECKS = {
    "transcription": _transcription,
    "all_documents": _transcription,
    "sentence": _sentence,
    "count": _count,
    "hallucination": _hallucination,
}
