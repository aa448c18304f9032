"""Which variety of Portuguese a text is in, with the evidence (paper section 5.1: the lexical filter; issue 6).

One pass gives a letter and the possible entries of every token; entries check their neighbours, and one expression over the
letters finds the grammar. Words that both varieties use are no evidence. Values: conf/data_prep/variety.yaml.
"""

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from data_prep.common.variety_lexicon import BRAZILIAN, PORTUGUESE, Entry, rows, same
from data_prep.common.variety_words import TOKEN, Words

UNKNOWN = "unknown"
CONFIG = Path(__file__).parents[2] / "conf" / "data_prep" / "variety.yaml"
#: strengths from the strongest; a name counts one step less.
STRENGTHS = ("strong", "medium", "weak", "hint")


class Evidence(NamedTuple):
    """A piece of evidence: characters [start, end) of the text, the rule that found it, and what it says."""

    start: int
    end: int
    rule: str
    explanation: str
    variety: str
    strength: str


@dataclass(frozen=True)
class Verdict:
    """`score`: log-odds of pt-BR against pt-PT, 0 without evidence; `variety` is "unknown" near 0."""

    variety: str
    score: float
    evidence: list[Evidence] = field(default_factory=list)

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
    def of(cls, lexical) -> "Scale":
        """From the `lexical` part of conf/data_prep/variety.yaml."""
        weights = {v: {s: float(lexical.weights[v][s]) for s in STRENGTHS} for v in (PORTUGUESE, BRAZILIAN)}
        return cls(weights, float(lexical.brazilian_from), float(lexical.portuguese_from))


@lru_cache(maxsize=1)
def default_scale() -> Scale:
    """The scale of conf/data_prep/variety.yaml."""
    from omegaconf import OmegaConf

    return Scale.of(OmegaConf.load(CONFIG).lexical)


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
            by_letter.setdefault(letter, []).append(f"(?P<{name}>{pattern})")
    compiled = {letter: re.compile("|".join(patterns)) for letter, patterns in by_letter.items()}
    return _Rules(Words(), re.compile(f"[{''.join(compiled)}]"), compiled, said)


def evidence(text: str, scale: Scale | None = None) -> Verdict:
    """The variety of `text` with every piece of evidence, in the text's order.

    Text without evidence is "unknown" with score 0. The same form of a rule counts once, however often it stands there.
    """
    lexicon, starts, by_letter, said = rules()
    low = text.lower()
    if len(low) != len(text):  # a few capitals (İ) grow: keep offsets
        low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    tokens = TOKEN.findall(low)
    letters = "".join([lexicon[token] for token in tokens])
    known = lexicon.entries_of
    words = [i for i, token in enumerate(tokens) if token in known]
    matches = []
    end = 0
    for start in starts.finditer(letters):
        at = start.start()
        if at >= end and (match := by_letter[letters[at]].match(letters, at)):
            matches.append(match)
            end = match.end()
    if not words and not matches:
        return Verdict(UNKNOWN, 0.0)
    spans = _spans(low, tokens)
    found = _lexical(text, tokens, letters, spans, [(i, entry) for i in words for entry in known[tokens[i]]])
    for match in matches:
        first, last = match.start(), match.end() - 1
        if not (match.lastgroup.endswith("_possessive") and _is_title(text, letters, spans, last)):
            variety, strength, explanation = said[match.lastgroup]
            found.append(Evidence(spans[first][0], spans[last][1], match.lastgroup, explanation, variety, strength))
    return _judge(low, _without_nested(found) if len(found) > 1 else found, scale or default_scale())


def _spans(low: str, tokens: list[str]) -> list[tuple[int, int]]:
    """Where the tokens are; what TOKEN skips begins no token, so that the next occurrence is the token's own."""
    spans, end = [], 0
    for token in tokens:
        start = low.find(token, end)
        end = start + len(token)
        spans.append((start, end))
    return spans


def _lexical(text: str, tokens: list, letters: str, spans: list, candidates: list[tuple[int, Entry]]) -> list[Evidence]:
    """The candidates (index of the token, entry) whose other tokens and guard agree with their neighbours."""
    found = []
    for index, entry in candidates:
        start = index - entry.anchor
        end = start + len(entry.tokens)
        if end - start > 1 and (start < 0 or not same(entry.tokens, tokens[start:end])):
            continue
        first, last = spans[index]
        capital = text[first].isupper()
        guard = entry.guard
        begins = start == 0 or letters[start - 1] == "."
        if guard and not guard.allows(tokens, start, end, begins, capital):
            continue
        strength = entry.strength
        name = capital and end - start == 1 and not begins and not (guard and guard.capital)
        if name and not text[first:last].isupper():
            strength = STRENGTHS[min(STRENGTHS.index(strength) + 1, len(STRENGTHS) - 1)]
        found.append(Evidence(spans[start][0], spans[end - 1][1], entry.rule, entry.explanation, entry.variety, strength))
    return found


def _is_title(text: str, letters: str, spans: list, index: int) -> bool:
    """Whether the possessive at `index` belongs to a name or a title (Nossa Senhora, Sua Santidade)."""
    after = spans[index + 1][0] if index + 1 < len(spans) else None
    inside = index > 0 and letters[index - 1] != "."
    return inside and text[spans[index][0]].isupper() or after is not None and text[after].isupper()


def _without_nested(found: list[Evidence]) -> list[Evidence]:
    """In order; a piece inside a longer one of the same kind (list or grammar) is part of it."""
    kept: list[Evidence] = []
    for piece in sorted(found, key=lambda e: (e.start, -e.end, STRENGTHS.index(e.strength))):
        if not any(k.start <= piece.start and piece.end <= k.end for k in kept if k.variety == piece.variety):
            kept.append(piece)
    return kept


def _judge(low: str, found: list[Evidence], scale: Scale) -> Verdict:
    counted, score = set(), 0.0
    for piece in found:
        form = (piece.rule, low[piece.start : piece.end])
        if form not in counted:
            counted.add(form)
            weight = scale.weights[piece.variety][piece.strength]
            score += weight if piece.variety == BRAZILIAN else -weight
    if score >= scale.brazilian_from:
        variety = BRAZILIAN
    elif score <= -scale.portuguese_from:
        variety = PORTUGUESE
    else:
        variety = UNKNOWN
    return Verdict(variety, score, found)


__all__ = ["BRAZILIAN", "CONFIG", "PORTUGUESE", "UNKNOWN", "Entry", "Evidence", "Scale", "Verdict", "default_scale", "evidence"]
