"""What a translator must not touch: image placeholders, boxes, code, LaTeX, addresses, tags, fixed instructions.

Such spans are replaced by marks (⟦1⟧) before a model sees the text, and put back afterwards; guards.py then compares
the spans of the source with those of the result, without knowing the marks.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FIXED = Path(__file__).with_name("instructions.tsv")
NUMBER = r"[-+]?\d+(?:\.\d+)?"
# In this order: what begins first wins, and of two that begin together the one that stands higher.
PATTERNS = {
    "code": r"(?P<fence>```|~~~)[^\n]*\n.*?(?:^[ \t]*(?P=fence)|\Z)|`[^`\n]+`",
    "image": r"<image>|<video>",
    "latex": (
        r"\$\$.+?\$\$|\\\[.+?\\\]|\\\(.+?\\\)|\\begin\{(?P<env>[a-z]+\*?)\}.*?\\end\{(?P=env)\}"
        r"|(?<![\w$\\])\$(?![\s\d])[^$\n]*?[^\s$\\]\$(?![\d\w])"  # $x$, not "between $5 and $10"
        r"|(?<![\w$\\])\$\d[^$\n]{0,60}?[\\^_=+*/{<>-][^$\n]{0,60}?(?<=[^\s\\])\$(?!\w)"  # $2x+1$
        r"|\\boxed\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}"
    ),
    "box": (
        rf"<(?P<tagged>box|bbox|quad|point|loc)>.*?</(?P=tagged)>|<loc\d+>(?:<loc\d+>)*"
        rf"|\[\s*{NUMBER}\s*(?:,\s*{NUMBER}\s*){{1,7}}\]"
        rf"|\(\s*{NUMBER}\s*,\s*{NUMBER}\s*\)(?:\s*,\s*\(\s*{NUMBER}\s*,\s*{NUMBER}\s*\))*"
    ),
    "url": r"\b(?:https?://|www\.)[^\s<>\"')\]]*[^\s<>\"')\].,;:!?]|\b[\w.+-]+@[\w-]+\.[\w.-]*\w",
    "tag": r"</?[A-Za-z][\w:-]*(?:\s[^<>\n]*)?/?>|<\|[^|<>\n]+\|>",
    "mark": r"[⟦⟧]",  # a text that has our own brackets keeps them, and marks stay unmistakable
}
QUOTE = r"\"[^\"\n]{1,200}\"|“[^”\n]{1,200}”|«[^»\n]{1,200}»"
MARK = re.compile(r"⟦\s*(\d+)\s*⟧")


@dataclass(frozen=True, slots=True)
class Span:
    """text[start:end] is of a kind. put: what stands there in the translation (itself, but for instructions)."""

    kind: str
    start: int
    end: int
    text: str
    put: str


@dataclass(frozen=True, slots=True)
class Masked:
    """A text with marks in the place of its spans: mark i stands for spans[i - 1]."""

    text: str
    spans: tuple[Span, ...]

    @property
    def core(self) -> str:
        """What a model sees: the text without white space, pictures and fixed instructions at its two ends."""
        before, after = self.edges
        return self.text[len(before) : len(self.text) - len(after)]

    @property
    def edges(self) -> tuple[str, str]:
        """What stands before the core, and after it."""
        outer = "|".join(str(i) for i, span in enumerate(self.spans, 1) if span.kind in ("image", "instruction"))
        piece = rf"(?:⟦(?:{outer})⟧|\s)*" if outer else r"\s*"
        before = re.match(piece, self.text).group()
        return before, re.search(rf"{piece}\Z", self.text[len(before) :]).group()


class MarkError(ValueError):
    """A translation does not hold every mark once; the text says which, in Portuguese, for the model."""


@lru_cache(maxsize=1)
def instructions() -> dict[str, str]:
    """English answer-format instruction -> its one pt-PT form; keys in lower case. From instructions.tsv."""
    rows = [line.split("\t") for line in FIXED.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {english.lower(): portuguese for english, portuguese in rows}


@lru_cache(maxsize=4)
def _pattern(quotes: bool, fixed: bool) -> re.Pattern[str]:
    kinds = dict(PATTERNS)
    if quotes:
        kinds["quote"] = QUOTE
    if fixed:
        longest = sorted(instructions(), key=len, reverse=True)
        kinds["instruction"] = r"(?<!\w)(?:" + "|".join(re.escape(text) for text in longest) + r")(?!\w)"
    joined = "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in kinds.items())
    return re.compile(joined, re.DOTALL | re.MULTILINE | re.IGNORECASE)


def find(text: str, quotes: bool = False, fixed: bool = False) -> tuple[Span, ...]:
    """The protected spans, in order, never overlapping. quotes: what stands in quotation marks, too (OCR sets, whose
    questions quote the picture). fixed: known answer-format instructions, too."""
    spans = []
    for match in _pattern(quotes, fixed).finditer(text):
        kind, found = match.lastgroup, match.group()
        put = instructions()[found.lower()] if kind == "instruction" else found
        spans.append(Span(kind, *match.span(), found, put))
    return tuple(spans)


def mask(text: str, quotes: bool = False, fixed: bool = True) -> Masked:
    """The text with its spans as marks, numbered from 1."""
    spans, parts, at = find(text, quotes, fixed), [], 0
    for number, span in enumerate(spans, 1):
        parts += [text[at : span.start], f"⟦{number}⟧"]
        at = span.end
    return Masked("".join([*parts, text[at:]]), spans)


def unmask(translation: str, masked: Masked) -> str:
    """The translation with the spans in the place of their marks.

    Raises MarkError when a mark is missing, repeated or unknown.
    """
    seen = Counter(int(number) for number in MARK.findall(translation))
    expected = Counter(range(1, len(masked.spans) + 1))
    if seen != expected:
        missing, extra = sorted(expected - seen), sorted(seen - expected)
        raise MarkError(
            f"as marcas ⟦n⟧ têm de aparecer todas, uma vez cada; em falta: {_marks(missing)}; a mais: {_marks(extra)}"
        )
    if re.search(r"[⟦⟧]", MARK.sub("", translation)):
        raise MarkError("há parênteses ⟦ ⟧ que não são marcas ⟦n⟧; escreva apenas as marcas do original")
    return MARK.sub(lambda match: masked.spans[int(match.group(1)) - 1].put, translation)


def outside(text: str, quotes: bool = False) -> str:
    """The text with a space in the place of every protected span: what numbers, names and words are looked for in."""
    parts, at = [], 0
    for span in find(text, quotes):
        parts += [text[at : span.start], " "]
        at = span.end
    return "".join([*parts, text[at:]])


def _marks(numbers: list[int]) -> str:
    return ", ".join(f"⟦{number}⟧" for number in numbers) or "nenhuma"
