"""Proper names of an English text, and whether a translation keeps them.

A name is a run of capitalised words with one that no English lexicon has as a common word (lemminflect: the NIH's
SPECIALIST lexicon), or with inner capitals or digits. Such a word must come back as it was ("the Eiffel Tower" -> "a
Torre Eiffel"), or a run in it is a country, a language or a city that Portuguese names in its own way (CLDR, through
Babel), or stands in names.tsv (months, nationalities, acronyms that are others in Portuguese: "DNA" -> "ADN"). What is
all common words ("Human Resources Department") is translated, so it is no name here; nor is "Apple".
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from pathlib import Path

WORDS = Path(__file__).with_name("names.tsv")
NAME = re.compile(
    r"(?<![\w’'])[A-ZÀ-Ý][\w’'.&-]*\w(?:(?:\s+(?:of|the|de|da|do|von|van|and|&))*\s+[A-ZÀ-Ý][\w’'&-]*\w)*"
)
STRONG = re.compile(r"[A-Z].*[A-Z]|[a-z].*[A-Z]|[A-Za-z].*\d|\d.*[A-Za-z]")  # NASA, iPhone, A4
NUMERAL = re.compile(r"[IVXLC]+|\d+")


def find(text: str) -> list[str]:
    """The names in a text."""
    found = (match.removesuffix("'s").removesuffix("’s") for match in NAME.findall(text))
    return [name for name in dict.fromkeys(found) if any(_own(part) for part in _parts(name))]


def lost(source: str, target: str) -> list[str]:
    """Names of the source of which the translation has nothing."""
    folded = _folded(target)
    return [name for name in find(source) if not _kept(name, folded)]


def _kept(name: str, target: str) -> bool:
    parts = [_folded(part) for part in _parts(name)]
    runs = {" ".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
    forms = {form for run in runs for key in (run, run.removesuffix("s")) for form in _exonyms().get(key, ())}
    if any(_has(form, target) for form in forms):
        return True
    own = [re.escape(_folded(part).removesuffix("s")) for part in _parts(name) if _own(part)]
    return any(re.search(rf"(?<!\w){part}s?(?!\w)", target) for part in own)


def _parts(name: str) -> list[str]:
    return re.findall(r"[\w’'.&-]*[\w&]", name)


@lru_cache(maxsize=1 << 16)
def _own(word: str) -> bool:
    """Whether a capitalised word is nobody's but the name's."""
    if len(word) < 2 or NUMERAL.fullmatch(word) or _folded(word) in _common():
        return False
    if STRONG.search(word):
        return not (word.isupper() and word.isalpha() and len(word) > 4 and _common_word(word))  # SALE, written large
    return word[0].isupper() and not all(_common_word(part) for part in re.split(r"[’'.&-]", word) if len(part) > 1)


def _common_word(word: str) -> bool:
    from lemminflect import getAllLemmas

    return word.lower() in _common() or bool(getAllLemmas(word.lower()))


def _has(form: str, target: str) -> bool:
    """Whether a word of the target begins with the form; a form of up to three letters must be the whole word."""
    return bool(re.search(rf"(?<!\w){re.escape(form)}" + (r"(?!\w)" if len(form) <= 3 else ""), target))


def _folded(text: str) -> str:
    """Lower case without accents: "São Tomé" and "Sao Tome" are one name."""
    plain = unicodedata.normalize("NFD", text.casefold())
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
    for zone, names in portuguese.time_zones.items():
        if "city" in names:
            city = english.time_zones.get(zone, {}).get("city") or zone.rpartition("/")[2].replace("_", " ")
            pairs.setdefault(_folded(city), set()).add(_folded(names["city"]))
    for name, forms in _rows():
        if forms:
            pairs.setdefault(name, set()).update(_folded(form) for form in forms.split("|"))
    return {name: frozenset(forms) for name, forms in pairs.items()}


@lru_cache(maxsize=1)
def _rows() -> tuple[tuple[str, str], ...]:
    lines = WORDS.read_text(encoding="utf-8").splitlines()
    return tuple((_folded(name), forms) for name, _, forms in (line.partition("\t") for line in lines if line))
