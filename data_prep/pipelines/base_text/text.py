"""Text to paragraphs and sentences."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from data_prep.engine import Drop, Run, Sample

# After . ! ? or an ellipsis, with closing quotes or brackets, before a capital, a digit or an opening quote.
BOUNDARY = re.compile(r"(?<=[.!?…])([»”\")\]]*)\s+(?=[«“\"(\[—–-]?\s?[A-ZÀ-ÖØ-Þ0-9])")
ABBREVIATION = re.compile(
    r"(?:\b(?:Sr|Sra|Srs|Dr|Dra|Prof|Eng|Exmo|Exma|Av|art|cf|fig|n|p|pp|pág|séc|St|Sto|Sta|vol|\w)\.)$", re.IGNORECASE
)


def split_paragraphs(sample: Sample, run: Run) -> list[Sample]:
    """A sample a paragraph; an empty line ends one."""
    paragraphs = [part for part in re.split(r"\n\s*\n", sample["text"]) if part.strip()]
    if not paragraphs:
        raise Drop("empty")
    return [sample | {"text": text} for text in paragraphs]


def tidy(sample: Sample, run: Run, *, shortest: int, longest: int) -> Sample:
    """NFC, single spaces; `shortest` and `longest` in characters."""
    text = " ".join(unicodedata.normalize("NFC", sample["text"]).split())
    if "\ufffd" in text:
        raise Drop("broken_characters")
    if len(text) < shortest:
        raise Drop("too_short")
    if len(text) > longest:
        raise Drop("too_long")
    return sample | {"text": text}


def find_sentences(sample: Sample, run: Run, *, fewest: int) -> Sample:
    """Adds "sentences", which joined by spaces are the text."""
    sentences = sentences_of(sample["text"])
    if len(sentences) < fewest:
        raise Drop("few_sentences")
    return sample | {"sentences": sentences}


def sentences_of(text: str) -> list[str]:
    """By punctuation; abbreviations (Sr., art., an initial) end none."""
    sentences, start = [], 0
    for match in BOUNDARY.finditer(text):
        end = match.start() + len(match.group(1))
        if not ABBREVIATION.search(text[start : match.start()]):
            sentences.append(text[start:end])
            start = match.end()
    return [*sentences, text[start:]]


def first_of_equal_texts(samples: Sequence[Sample], run: Run) -> list[int]:
    """Positions of the texts that were not there before, whatever their case."""
    seen: dict[str, int] = {}
    for position, sample in enumerate(samples):
        seen.setdefault(sample["text"].casefold(), position)
    return list(seen.values())
