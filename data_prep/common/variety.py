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

from data_prep.common.variety_lexicon import BRAZILIAN, PORTUGUESE, WINDOW, Entry, Guard, rows
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


@lru_cache(maxsize=1)
def words() -> Words:
    """The lexicon, read once a process."""
    return Words()


@lru_cache(maxsize=1)
def _grammar() -> tuple[re.Pattern, dict[str, tuple[str, str, str]]]:
    """(one expression of all rules over letters, rule -> (variety, strength, explanation))."""
    rules = list(rows("grammar"))
    # One alternative a rule; a rule's own branches are kept together by its group.
    pattern = re.compile("|".join(f"(?P<{name}>{rule})" for name, _, _, rule, _ in rules))
    return pattern, {name: (variety, strength, text) for name, variety, strength, _, text in rules}


def evidence(text: str, scale: Scale | None = None) -> Verdict:
    """The variety of `text` with every piece of evidence, in the text's order.

    Text without evidence is "unknown" with score 0. The same form of a rule counts once, however often it stands there.
    """
    lexicon = words()
    low = text.lower()
    if len(low) != len(text):  # a few capitals (İ) grow: keep offsets
        low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    tokens = TOKEN.findall(low)
    letters = "".join([lexicon[token] for token in tokens])
    known = lexicon.entries_of
    pattern, _ = _grammar()
    if known.keys().isdisjoint(tokens) and not pattern.search(letters):
        return Verdict(UNKNOWN, 0.0)
    spans = [match.span() for match in TOKEN.finditer(low)]
    found = list(_lexical(text, tokens, letters, spans, known))
    found += _grammatical(text, letters, spans)
    return _judge(low, _without_nested(found), scale or default_scale())


def _lexical(text, tokens, letters, spans, known):
    for index, token in enumerate(tokens):
        for entry in known.get(token, ()):
            start = index - entry.anchor
            end = start + len(entry.tokens)
            if start < 0 or (len(entry.tokens) > 1 and not _matches(entry.tokens, tokens[start:end])):
                continue
            capital = text[spans[index][0]].isupper()
            if entry.guard and not _allowed(entry.guard, tokens, start, end, letters, capital):
                continue
            name = capital and len(entry.tokens) == 1 and not (entry.guard and entry.guard.capital)
            strength = entry.strength
            if name and start and letters[start - 1] != "." and not text[spans[index][0] : spans[index][1]].isupper():
                strength = STRENGTHS[min(STRENGTHS.index(strength) + 1, len(STRENGTHS) - 1)]
            yield Evidence(spans[start][0], spans[end - 1][1], entry.rule, entry.explanation, entry.variety, strength)


def _grammatical(text, letters, spans):
    pattern, rules = _grammar()
    for match in pattern.finditer(letters):
        variety, strength, explanation = rules[match.lastgroup]
        start, end = spans[match.start()][0], spans[match.end() - 1][1]
        if match.lastgroup.endswith("_possessive") and _is_title(text, letters, spans, match.end() - 1):
            continue
        yield Evidence(start, end, match.lastgroup, explanation, variety, strength)


def _is_title(text: str, letters: str, spans: list, index: int) -> bool:
    """Whether the possessive at `index` belongs to a name or a title (Nossa Senhora, Sua Santidade)."""
    after = spans[index + 1][0] if index + 1 < len(spans) else None
    inside = index > 0 and letters[index - 1] != "."
    return inside and text[spans[index][0]].isupper() or after is not None and text[after].isupper()


def _matches(wanted: tuple, tokens: list) -> bool:
    if len(wanted) != len(tokens):
        return False
    return all(t.startswith(w[:-1]) if w[-1] == "*" and len(w) > 1 else t == w for w, t in zip(wanted, tokens, strict=True))


def _allowed(guard: Guard, tokens, start: int, end: int, letters: str, capital: bool) -> bool:
    """Whether the neighbours of tokens[start:end] are as the guard wants."""
    if guard.capital and not capital:
        return False

    def after(alternatives):
        return any(_matches(words, tokens[end : end + len(words)]) for words in alternatives)

    def before(alternatives):
        first = start == 0 or letters[start - 1] == "."
        return any(
            first if words == ("^",) else _matches(words, tokens[max(0, start - len(words)) : start])
            for words in alternatives
        )

    def near(alternatives):
        around = tokens[max(0, start - WINDOW) : start] + tokens[end : end + WINDOW]
        return any(_matches(words, [token]) for words in alternatives for token in around)

    if guard.following and not after(guard.following) or guard.preceding and not before(guard.preceding):
        return False
    if after(guard.not_following) or before(guard.not_preceding) or near(guard.not_near):
        return False
    return not guard.near or near(guard.near)


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
