"""Proper names of an English text, and whether a translation keeps them.

A name is a run of capitalised words inside a sentence, an acronym, or a word with an inner capital or digits. One word
of a run must come back as it was ("the Eiffel Tower" -> "a Torre Eiffel"), or the run is a country, a language or a
city that Portuguese names in its own way (the exonyms of CLDR, through Babel), or a word of names.tsv (months,
weekdays, nationalities, acronyms that are others in Portuguese: "DNA" -> "ADN").
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from pathlib import Path

WORDS = Path(__file__).with_name("names.tsv")
NAME = re.compile(
    r"(?P<before>(?:^|[.!?:;\n\"“(*#>|-]|\d[.)])\s*)?"
    r"(?<!\w)(?P<name>[A-ZÀ-Ý][\w’'.&-]*\w(?:(?:\s+(?:of|the|de|da|do|von|van|and|&))*\s+[A-ZÀ-Ý][\w’'&-]*\w)*)"
)
STRONG = re.compile(r"[A-Z].*[A-Z]|[a-z].*[A-Z]|\d")


def find(text: str) -> list[str]:
    """The names in a text, without those that only begin a sentence."""
    found = []
    for match in NAME.finditer(text):
        name = match["name"].removesuffix("'s").removesuffix("’s")
        if match["before"] is not None:  # the first word is capitalised anyway: what follows it may be a name
            first, _, rest = name.partition(" ")
            if not STRONG.search(first):
                name = re.sub(r"^(?:(?:of|the|and|de|da|do)\s+)+", "", rest)
        if name and not set(_folded(name).split()) <= _common():
            found.append(name)
    return list(dict.fromkeys(found))


def lost(source: str, target: str) -> list[str]:
    """Names of the source of which the translation has nothing."""
    folded = _folded(target)
    words = set(re.findall(r"[\w’'&-]+", folded))
    return [name for name in find(source) if not _kept(name, folded, words)]


def _kept(name: str, target: str, words: set[str]) -> bool:
    if any(_has(form, target) for form in _exonyms().get(_folded(name), ())):
        return True
    parts = [part for part in re.findall(r"[\w’'&-]+", _folded(name)) if part not in _common() and len(part) > 1]
    if not parts or any(part in words or part.removesuffix("s") in words for part in parts):
        return True
    return any(_has(form, target) for part in parts for form in _exonyms().get(part, ()))


def _has(form: str, target: str) -> bool:
    """Whether a word of the target begins with the form; a form of up to three letters must be the whole word."""
    return bool(re.search(rf"(?<!\w){re.escape(form)}" + (r"(?!\w)" if len(form) <= 3 else ""), target))


def _folded(text: str) -> str:
    """Lower case without accents: "São Tomé" and "Sao Tome" are one name."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).replace("’", "'")


@lru_cache(maxsize=1)
def _common() -> frozenset[str]:
    """Words that are capitalised without being names: those that names.tsv gives no translation of."""
    return frozenset(row[0] for row in _rows() if row[1] == "")


@lru_cache(maxsize=1)
def _exonyms() -> dict[str, frozenset[str]]:
    """Folded English name -> folded beginnings of its pt-PT forms, from CLDR and names.tsv."""
    from babel import Locale

    english, portuguese = Locale("en"), Locale("pt", "PT")
    pairs: dict[str, set[str]] = {}
    for kind in ("territories", "languages", "currencies"):
        theirs = getattr(portuguese, kind)
        for code, name in getattr(english, kind).items():
            if code in theirs:
                pairs.setdefault(_folded(name), set()).add(_folded(theirs[code]))
    for zone in english.time_zones:
        city = english.time_zones[zone].get("city") or zone.rpartition("/")[2].replace("_", " ")
        there = portuguese.time_zones.get(zone, {}).get("city")
        if there:
            pairs.setdefault(_folded(city), set()).add(_folded(there))
    for name, forms in _rows():
        if forms:
            pairs.setdefault(name, set()).update(_folded(form) for form in forms.split("|"))
    return {name: frozenset(forms) for name, forms in pairs.items()}


@lru_cache(maxsize=1)
def _rows() -> tuple[tuple[str, str], ...]:
    lines = WORDS.read_text(encoding="utf-8").splitlines()
    return tuple((_folded(name), forms) for name, _, forms in (line.partition("\t") for line in lines if line))
