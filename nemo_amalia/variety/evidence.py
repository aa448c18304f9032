"""Which variety of Portuguese a text is in, with the evidence (paper section 5.1: the lexical filter; issue 6).

One pass gives a letter and the possible entries of every token; entries check their neighbours, and expressions over
the letters find the grammar. A text without either ends there. Words that both varieties use are no evidence. Values:
scale.yaml.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from nemo_amalia.variety import words as variety_words
from nemo_amalia.variety.lexicon import BRAZILIAN, PORTUGUESE, rows, same
from nemo_amalia.variety.words import Places, Words

UNKNOWN = "unknown"
SCALE = Path(__file__).with_name("scale.yaml")
#: strengths from the strongest; a name counts one step less.
STRENGTHS = ("strong", "medium", "weak", "hint")
_RANK = {strength: rank for rank, strength in enumerate(STRENGTHS)}
_LESS = dict(zip(STRENGTHS, (*STRENGTHS[1:], STRENGTHS[-1]), strict=True))


class Evidence(NamedTuple):
    """A piece of evidence: characters [start, end) of the text, the rule that found it, and what it says."""

    start: int
    end: int
    rule: str
    explanation: str
    variety: str
    strength: str


class Verdict(NamedTuple):
    """`score`: log-odds of pt-BR against pt-PT, 0 without evidence; `variety` is "unknown" near 0."""

    variety: str
    score: float
    evidence: list[Evidence]

    @property
    def brazilian(self) -> float:
        """Probability of pt-BR, of the two varieties, in 0..1."""
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, self.score))))


@dataclass(frozen=True)
class Scale:
    """Weights in log-odds by variety and strength, the thresholds of a verdict, and the cap of a rule's weight."""

    weights: dict
    brazilian_from: float
    portuguese_from: float

    @classmethod
    def of(cls, lexical: Mapping[str, Any]) -> "Scale":
        """Build a scale from a mapping of the form of scale.yaml."""
        weights = {v: {s: float(lexical["weights"][v][s]) for s in STRENGTHS} for v in (PORTUGUESE, BRAZILIAN)}
        return cls(weights, float(lexical["brazilian_from"]), float(lexical["portuguese_from"]))


@lru_cache(maxsize=1)
def default_scale() -> Scale:
    """Return the scale of scale.yaml."""
    return Scale.of(yaml.safe_load(SCALE.read_text(encoding="utf-8")))


#: `<main>X` of a rule: X stands before, and from the sentence's start to it at most MAIN tokens, none of which draws a
#: clitic before the verb in pt-PT, too (que, não, quando), or is another verb form. Lookbehinds have one length each.
_MAIN = re.compile(r"<main>(\[[^]]+\])")
MAIN, _PLAIN = 9, "[^.KPIHGVWsS]"


def _before(match: re.Match) -> str:
    starts = (f"{start}{_PLAIN}{{{n}}}{match[1]}" for n in range(1, MAIN + 1) for start in ("^", "[.]"))
    return f"(?:{'|'.join(f'(?<={start})' for start in starts)})"


class _Rules(NamedTuple):
    """The lexicon; the letters that a grammar rule can begin with; the rules that begin with each; what a rule says."""

    words: Words
    starts: re.Pattern
    by_letter: dict[str, re.Pattern]
    said: dict[str, tuple[str, str, str]]


@lru_cache(maxsize=1)
def rules() -> _Rules:
    """Lists and rules, read once a process (about 0.1 s)."""
    by_letter: dict[str, list[str]] = {}
    said = {}
    for name, variety, strength, starts, pattern, explanation in rows("grammar"):
        said[name] = (variety, strength, explanation)
        for letter in starts:
            by_letter.setdefault(letter, []).append(f"(?P<{name}>{_MAIN.sub(_before, pattern)})")
    compiled = {letter: re.compile("|".join(patterns)) for letter, patterns in by_letter.items()}
    return _Rules(Words(), re.compile(f"[{''.join(compiled)}]"), compiled, said)


def evidence(text: str, scale: Scale | None = None) -> Verdict:
    """The variety of `text` with every piece of evidence, in the text's order.

    Text without evidence is "unknown" with score 0. The same form of a rule counts once, however often it stands there.
    """
    lexicon, starts, by_letter, said = rules()
    if len(lexicon) > variety_words.MOST:
        lexicon.forget()
    low = text.lower()
    if len(low) != len(text):  # a few capitals (İ) grow: keep offsets
        low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    texts = low.split(" ")
    parts = list(map(lexicon.__getitem__, texts))
    letters = "".join(parts)
    anchors = lexicon.anchors
    anchored = [at for at, chunk in enumerate(texts) if chunk in anchors]
    matches = []
    end = 0
    for start in starts.finditer(letters):
        at = start.start()
        if at >= end and (match := by_letter[letters[at]].match(letters, at)):
            matches.append(match)
            end = match.end()
    if not anchored and not matches:
        return Verdict(UNKNOWN, 0.0, [])
    places = Places(texts, parts, lexicon)
    found = _lexical(text, letters, places, anchored) if anchored else []
    for match in matches:
        first, last = match.start(), match.end() - 1
        if not (match.lastgroup.endswith("_possessive") and _is_title(text, letters, places, last)):
            variety, strength, explanation = said[match.lastgroup]
            start, end = places.span(first)
            if last != first:
                end = places.span(last)[1]
            found.append(Evidence(start, end, match.lastgroup, explanation, variety, strength))
    return _judge(low, _without_nested(found) if len(found) > 1 else found, scale or default_scale())


def _lexical(text: str, letters: str, places: Places, anchored: list[int]) -> list[Evidence]:
    """The entries of the chunks `anchored` whose other tokens and guard agree with their neighbours."""
    found = []
    tokens = places.tokens()
    for at in anchored:
        chunk = places.texts[at]
        spans = places.spans_of[chunk]
        for place, entries in places.anchors[chunk]:
            index = places.first[at] + place
            before = tokens[index - 1] if index else None
            after = tokens[index + 1] if index + 1 < len(tokens) else None
            for entry, previous, following in entries:
                if (following and following != after) or (previous and previous != before):
                    continue
                start = index - entry.anchor
                end = start + len(entry.tokens)
                single = end - start == 1
                if not single and (start < 0 or not same(entry.tokens, tokens[start:end])):
                    continue
                first, last = spans[place]
                first, last = first + places.before[at] + at, last + places.before[at] + at
                capital = text[first].isupper()
                begins = start == 0 or letters[start - 1] == "."
                guard, strength = entry.guard, entry.strength
                if guard and not guard.allows(tokens, start, end, begins, capital):
                    continue
                if not single:
                    first, last = places.span(start)[0], places.span(end - 1)[1]
                elif capital and not begins and not (guard and guard.capital) and not text[first:last].isupper():
                    strength = _LESS[strength]  # a name
                found.append(Evidence(first, last, entry.rule, entry.explanation, entry.variety, strength))
    return found


def _is_title(text: str, letters: str, places: Places, index: int) -> bool:
    """Whether the possessive at `index` belongs to a name or a title (Nossa Senhora, Sua Santidade)."""
    after = places.span(index + 1)[0] if index + 1 < len(letters) else None
    inside = index > 0 and letters[index - 1] != "."
    return inside and text[places.span(index)[0]].isupper() or after is not None and text[after].isupper()


def _without_nested(found: list[Evidence]) -> list[Evidence]:
    """In order; a piece inside a longer one of the same kind (list or grammar) is part of it."""
    kept: list[Evidence] = []
    for piece in sorted(found, key=lambda e: (e.start, -e.end, _RANK[e.strength])):
        start, end, variety = piece.start, piece.end, piece.variety
        for other in kept:
            if other.start <= start and end <= other.end and other.variety == variety:
                break
        else:
            kept.append(piece)
    return kept


def _judge(low: str, found: list[Evidence], scale: Scale) -> Verdict:
    counted, score = set(), 0.0
    for start, end, rule, _, variety, strength in found:
        form = (rule, variety, low[start:end])
        if form not in counted:
            counted.add(form)
            weight = scale.weights[variety][strength]
            score += weight if variety == BRAZILIAN else -weight
    if score >= scale.brazilian_from:
        variety = BRAZILIAN
    elif score <= -scale.portuguese_from:
        variety = PORTUGUESE
    else:
        variety = UNKNOWN
    return Verdict(variety, score, found)
