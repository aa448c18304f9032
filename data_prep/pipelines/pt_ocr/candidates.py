"""Transcriptions that look right and are not: one seeded change of a named kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

from data_prep.pipelines.pt_ocr.slots import lists, names
from data_prep.text.sentences import sentences

KINDS = ("number", "word", "name", "dropped", "added")


@dataclass(frozen=True, slots=True)
class Candidate:
    """text: the wrong transcription. kind: of KINDS. before, after: what was changed ("" where nothing stood)."""

    text: str
    kind: str
    before: str
    after: str


def candidate(text: str, rng: Random, others: Sequence[str] = (), kinds: Sequence[str] = KINDS) -> Candidate | None:
    """A wrong transcription of a text, None where no kind fits it (a single word, say).

    others: sentences or rows that may be added. The kind is drawn evenly from those that fit. It never equals the text,
    spacing, case and punctuation aside.
    """
    order = list(kinds)
    rng.shuffle(order)
    for kind in order:
        found = _KINDS[kind](text, rng, others)
        if found and squeezed(found.text) != squeezed(text):
            return found
    return None


def squeezed(text: str) -> str:
    """Letters and digits alone, without case: two texts that differ only elsewhere are no hallucination."""
    return "".join(c for c in text.casefold() if c.isalnum())


def _number(text: str, rng: Random, others: Sequence[str]) -> Candidate | None:
    """Another digit in a number; hours stay below 24, minutes below 60 and days below 29."""
    spots = list(re.finditer(r"\d+", text))
    if not spots:
        return None
    spot = rng.choice(spots)
    old = spot[0]
    low, high = 10 ** (len(old) - 1) if len(old) > 1 else 1, 10 ** len(old) - 1
    if re.match(r" de (?:" + "|".join(lists()["months"]) + ")", text[spot.end() :]):
        low, high = 1, 28
    elif len(old) <= 2 and re.match(r"h(?:\d\d|\b)", text[spot.end() :]):
        low, high = 0, 23
    elif len(old) == 2 and re.search(r"\dh$", text[: spot.start()]):
        low, high = 0, 59
    for _ in range(20):
        place = rng.randrange(len(old))
        new = old[:place] + rng.choice("0123456789") + old[place + 1 :]
        if new != old and low <= int(new) <= high or (old.startswith("0") and new != old and len(old) > 2):
            return _changed(text, spot.start(), spot.end(), new, "number")
    return None


@lru_cache(maxsize=1)
def _swaps() -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for line in (Path(__file__).with_name("swaps.tsv")).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            words = tuple(line.split("\t"))
            for word in words:
                groups[word] = groups.get(word, ()) + tuple(w for w in words if w != word)
    return groups


@lru_cache(maxsize=1)
def _swap_pattern() -> re.Pattern[str]:
    return _any_of(_swaps())


def _any_of(words: Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=lambda w: (-len(w), w))
    return re.compile(r"(?<![\w-])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![\w-])")


def _word(text: str, rng: Random, others: Sequence[str]) -> Candidate | None:
    """A word of swaps.tsv for another of its group."""
    spots = list(_swap_pattern().finditer(text))
    if not spots:
        return None
    spot = rng.choice(spots)
    return _changed(text, spot.start(), spot.end(), rng.choice(_swaps()[spot[0]]), "word")


@lru_cache(maxsize=1)
def _named() -> tuple[re.Pattern[str], dict[str, str]]:
    kinds = {name: kind for kind, words in reversed(names().items()) for name in words}
    return _any_of(kinds), kinds


def _name(text: str, rng: Random, others: Sequence[str]) -> Candidate | None:
    """A first name for one of the same gender, a last name or a city for another."""
    pattern, kinds = _named()
    spots = list(pattern.finditer(text))
    if not spots:
        return None
    spot = rng.choice(spots)
    new = rng.choice([name for name in names()[kinds[spot[0]]] if name != spot[0]])
    return _changed(text, spot.start(), spot.end(), new, "name")


def _dropped(text: str, rng: Random, others: Sequence[str]) -> Candidate | None:
    """A sentence or row that is left out."""
    pieces = sentences(text)
    if len(pieces) < 2:
        return None
    number, start = rng.randrange(len(pieces)), 0
    for piece in pieces[:number]:
        start = text.index(piece, start) + len(piece)
    start = text.index(pieces[number], start)
    end = start + len(pieces[number])
    before, after = text[:start].rstrip(" "), text[end:].lstrip(" ")
    if before.endswith("\n") or not before:  # with the line end that would be left alone
        after = after.lstrip("\n")
    joint = "" if not before or not after or before.endswith("\n") or after.startswith("\n") else " "
    return Candidate((before + joint + after).rstrip("\n"), "dropped", pieces[number], "")


def _added(text: str, rng: Random, others: Sequence[str]) -> Candidate | None:
    """A sentence or row of another text, after one of this."""
    have = squeezed(text)
    free = [other for other in others if squeezed(other) and squeezed(other) not in have]
    if not free:
        return None
    new, ends, end = rng.choice(free), [], 0
    for piece in sentences(text):
        end = text.index(piece, end) + len(piece)
        ends.append(end)
    rows = "\n" in text.replace("\n\n", "")
    closed = [end for end in ends if text[:end].rstrip("»”’\"')]")[-1:] in tuple(".!?…")]  # not after a title
    end = rng.choice(ends if rows or not closed else closed)
    joint = "\n" if rows or not closed else " "
    return Candidate(text[:end] + joint + new + text[end:], "added", "", new)


def _changed(text: str, start: int, end: int, new: str, kind: str) -> Candidate:
    return Candidate(text[:start] + new + text[end:], kind, text[start:end], new)


_KINDS: dict[str, Callable[[str, Random, Sequence[str]], Candidate | None]] = {
    "number": _number,
    "word": _word,
    "name": _name,
    "dropped": _dropped,
    "added": _added,
}
