"""Read the word lists of lexicons/: pt-PT and pt-BR words in pairs, their inflections, and guards of ambiguous ones.

A pair is a line `pt-PT items<TAB>pt-BR items`; docs/data_prep/variety.md has the notation. Nothing is decided here.
"""

import csv
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEXICON = Path(__file__).parent / "lexicons"
PORTUGUESE, BRAZILIAN = "pt-PT", "pt-BR"
#: mark of an item -> its strength; "=" is a shared word, or a (note), named in explanations and never counted.
MARKS = {"~": "medium", "?": "weak"}
_COMMA = re.compile(r",(?![^{]*\})")  # not inside a guard
_ITEM = re.compile(r"^(?P<mark>[~?=]?)(?P<form>[^/{*]+)(?P<stem>\*?)(?:/(?P<inflection>[nav]))?(?:\{(?P<guard>.*)\})?$")
_GUARD = re.compile(r"^(!?[<>]|\+|-|A$)(.*)$")
WINDOW = 8  # tokens on either side in which + and - of a guard look

#: words so frequent that a phrase is rather found by another of its words
_FREQUENT = frozenset("a o as os e de do da em no na por para com sem uma um que não mais como até foi ser ter".split())

_AR = "o as a amos am ei aste ou aram ava avas ávamos avam arei ará arás aremos arão aria ariam e es emos em "
_AR += "asse assem ássemos ar ares armos arem ando ado ada ados adas"
_ER = "o es e emos em i este eu eram ia ias íamos iam erei erá erás eremos erão eria eriam a as amos am "
_ER += "esse essem er eres ermos erem endo ido ida idos idas"
_IR = "o es e imos em i iste iu iram ia ias íamos iam irei irá irás iremos irão iria iriam a as amos am "
_IR += "isse issem ir ires irmos irem indo ido ida idos idas"
_ENDINGS = {"ar": _AR.split(), "er": _ER.split(), "ir": _IR.split()}
_PLURALS = (("ão", "ões"), ("al", "ais"), ("el", "éis"), ("ol", "óis"), ("ul", "uis"), ("m", "ns"))


@dataclass(frozen=True, slots=True)
class Words:
    """Alternatives of a guard: words, beginnings of words (written with *), and phrases."""

    single: frozenset[str] = frozenset()
    stems: tuple[str, ...] = ()
    phrases: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, texts: list[str]) -> "Words":
        """From `word`, `stem*` and `a_phrase`; `^` is the start of a sentence."""
        phrases = tuple(tuple(text.split("_")) for text in texts if "_" in text)
        stems = tuple(text[:-1] for text in texts if text.endswith("*") and "_" not in text)
        return cls(frozenset(t for t in texts if "_" not in t and not t.endswith("*")), stems, phrases)

    def has(self, token: str) -> bool:
        """Whether one token is an alternative."""
        return token in self.single or bool(self.stems) and token.startswith(self.stems)

    def begin(self, tokens: list[str], start: int) -> bool:
        """Whether tokens[start:] begin with an alternative."""
        if start >= len(tokens):
            return False
        if tokens[start] in self.single or self.stems and tokens[start].startswith(self.stems):
            return True
        return bool(self.phrases) and any(same(p, tokens[start : start + len(p)]) for p in self.phrases)

    def end(self, tokens: list[str], end: int) -> bool:
        """Whether tokens[:end] end with an alternative."""
        if not end:
            return False
        if tokens[end - 1] in self.single or self.stems and tokens[end - 1].startswith(self.stems):
            return True
        return bool(self.phrases) and any(same(p, tokens[max(0, end - len(p)) : end]) for p in self.phrases)

    def among(self, tokens: list[str]) -> bool:
        """Whether any of the tokens is an alternative (phrases are not looked for)."""
        if not self.single.isdisjoint(tokens):
            return True
        return bool(self.stems) and any(token.startswith(self.stems) for token in tokens)


def same(phrase: tuple[str, ...], tokens: list[str]) -> bool:
    """Whether the tokens are the phrase, whose words may end in *."""
    if len(phrase) != len(tokens):
        return False
    for wanted, token in zip(phrase, tokens, strict=True):
        if token != wanted and not (wanted[-1] == "*" and token.startswith(wanted[:-1])):
            return False
    return True


@dataclass(frozen=True, slots=True)
class Guard:
    """Where an ambiguous word counts; None: no condition."""

    following: Words | None = None
    preceding: Words | None = None
    not_following: Words | None = None
    not_preceding: Words | None = None
    near: Words | None = None
    not_near: Words | None = None
    capital: bool = False

    def allows(self, tokens: list[str], start: int, end: int, first: bool, capital: bool) -> bool:
        """Whether tokens[start:end] count. `first`: they begin a sentence; `capital`: with a capital letter."""
        if self.capital and not capital:
            return False
        if self.following and not self.following.begin(tokens, end):
            return False
        if self.preceding and not (self.preceding.end(tokens, start) or first and "^" in self.preceding.single):
            return False
        if self.not_following and self.not_following.begin(tokens, end):
            return False
        if self.not_preceding and (self.not_preceding.end(tokens, start) or first and "^" in self.not_preceding.single):
            return False
        if self.near is None and self.not_near is None:
            return True
        around = tokens[max(0, start - WINDOW) : start] + tokens[end : end + WINDOW]
        return not (self.not_near and self.not_near.among(around)) and not (self.near and not self.near.among(around))


@dataclass(frozen=True, slots=True)
class Entry:
    """A form of one variety: its tokens, with the one it is found by, and what is said of it."""

    variety: str
    strength: str
    rule: str
    tokens: tuple[str, ...]
    anchor: int
    explanation: str
    guard: Guard | None = None


def rows(name: str) -> Iterator[list[str]]:
    """The lines of lexicon/`name`.tsv under its header, comments left out."""
    with (LEXICON / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        width = len(next(lines))
        for number, row in enumerate(lines, 2):
            if not row or row[0].startswith("# "):
                continue
            if len(row) != width:
                raise ValueError(f"{name}.tsv line {number} has {len(row)} columns, expected {width}: mend the tabs")
            yield row


def entries(name: str) -> Iterator[Entry]:
    """Every inflected form of the pairs in lexicon/`name`.tsv (stems keep their * as the last character)."""
    for row in rows(name):
        items = [[_item(name, text) for text in _COMMA.split(cell) if text.strip()] for cell in row]
        for variety, mine, others in ((PORTUGUESE, items[0], items[1]), (BRAZILIAN, items[1], items[0])):
            other = PORTUGUESE if variety == BRAZILIAN else BRAZILIAN
            words = list(dict.fromkeys(item["form"] + item["stem"] for item in others))
            for item in mine:
                if item["mark"] != "=":
                    word = item["form"] + item["stem"]
                    explanation = f"{word}: {_said(other, word, words) if words else variety}"
                    yield from _forms(item, variety, name, explanation)


def _said(variety: str, word: str, words: list[str]) -> str:
    """What the variety has for the word: one of its words, or what a note in parentheses says."""
    if words[0].startswith("("):
        return f"{variety} {words[0].strip('()')}"
    return f"{variety} says {_counterpart(word, words)}"


def _counterpart(word: str, others: list[str]) -> str:
    """What the other variety says for this word: dezasseis for dezesseis; the first three where none is like it."""
    like = difflib.get_close_matches(word, others, n=1, cutoff=0.7) if len(others) > 1 else []
    return ", ".join(like or others[:3])


def _item(name: str, text: str) -> dict:
    match = _ITEM.match(text.strip())
    if not match:
        raise ValueError(f"{name}.tsv has {text.strip()!r}, expected [mark]word[/inflection][{{guard}}]: mend it")
    return {key: value or "" for key, value in match.groupdict().items()}


def _forms(item: dict, variety: str, rule: str, explanation: str) -> Iterator[Entry]:
    guard = parse_guard(item["guard"]) if item["guard"] else None
    words = inflect(item["form"], item["inflection"]) if item["inflection"] else [item["form"]]
    for word in words:
        tokens = tuple((word + item["stem"]).split())
        anchor = max(range(len(tokens)), key=lambda i: (tokens[i] not in _FREQUENT, len(tokens[i])))
        yield Entry(variety, MARKS.get(item["mark"], "strong"), rule, tokens, anchor, explanation, guard)


def parse_guard(text: str) -> Guard:
    """`>a|b` next, `<a` before, `!>` and `!<` not so, `+a` near, `-a` not near, `A` capital; `_` joins tokens."""
    names = {">": "following", "<": "preceding", "!>": "not_following", "!<": "not_preceding"}
    names |= {"+": "near", "-": "not_near"}
    found: dict = {}
    for part in text.split():
        match = _GUARD.match(part)
        if not match:
            raise ValueError(f"guard {{{text}}} has {part!r}, expected >, <, !>, !<, +, - or A first: mend the list")
        kind, words = match.groups()
        if kind == "A":
            found["capital"] = True
        else:
            found[names[kind]] = Words.of([word for word in words.split("|") if word])
    return Guard(**found)


def inflect(word: str, inflection: str) -> list[str]:
    """Forms of a regular word: n noun (2), a noun or adjective of two genders (4), v verb (about 40)."""
    if inflection == "n":
        return [word, plural(word)]
    if inflection == "v":
        return conjugate(word)
    stem = word[:-1] if word[-1] == "o" else word
    feminine = (stem if word[-1] != "ê" else word) + "a"
    return [word, plural(word), feminine, feminine + "s"]


def plural(word: str) -> str:
    """Regular plural: "ão" gives "ões"; the others are listed in full where they differ."""
    for ending, plural_ending in _PLURALS:
        if word.endswith(ending):
            return word[: -len(ending)] + plural_ending
    if word[-1] in "rz":
        return word + "es"
    return word if word[-1] == "s" else word + "s"


def conjugate(infinitive: str) -> list[str]:
    """Simple forms of a regular verb in -ar, -er, -ir, with c/qu, g/gu, ç/c, g/j before the endings that need it."""
    stem, kind = infinitive[:-2], infinitive[-2:]
    if kind not in _ENDINGS:
        raise ValueError(f"{infinitive!r} is no verb in -ar, -er or -ir: list its forms without /v")
    changed = {"ar": {"c": "qu", "g": "gu", "ç": "c"}, "er": {"c": "ç", "g": "j"}, "ir": {"c": "ç", "g": "j"}}[kind]
    front = "eéêi" if kind == "ar" else "oaáâ"
    soft = stem[:-1] + changed[stem[-1]] if stem[-1] in changed else stem
    forms = [(soft if ending[0] in front else stem) + ending for ending in _ENDINGS[kind]]
    if infinitive.endswith("ear"):
        forms += [f"{stem}i{ending}" for ending in ("o", "as", "a", "am", "e", "es", "em")]  # planeia
    return forms + ([f"{stem}ámos"] if kind == "ar" else [])
