"""Numbers and units of a text and of its translation: the same values, in either country's notation.

1,234.5 may stay as it is or become 1234,5, 1.234,5 or 1 234,5; a small number may become a word and back ("two", "2"),
"1990s" may become "anos 90", "19th century" "século XIX", "5 pm" "17h". Anything else is a number lost or made up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

HERE = Path(__file__).parent
ENGLISH = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,]\d)|\d+(?:\.\d+)+|\d+|(?<!\d)\.\d+")
TOKEN = re.compile(r"\d+(?:[.,]\d+)*|(?<!\d)[.,]\d+")
SPACED = re.compile(r"(?<!\d)(?<!\d[.,])\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?:,\d+)?(?!\d)")
ROMAN = re.compile(r"\b[IVXLC]+\b")
ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}


def english(text: str) -> list[str]:
    """The numbers of an English text, without grouping: "1,234.5 and 7" -> ["1234.5", "7"]."""
    return [match.replace(",", "") for match in ENGLISH.findall(text)]


def readings(token: str) -> list[str]:
    """What a number of a Portuguese text may be, likeliest first: verbatim, Portuguese notation, English notation."""
    found = [token]
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+(?:,\d+)?", token) or re.fullmatch(r"\d*,\d+", token):
        found.append(token.replace(".", "").replace(",", "."))
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", token):
        found.append(token.replace(",", ""))
    return list(dict.fromkeys([*found, token.lstrip(",")]))


def compare(source: str, target: str) -> tuple[list[str], list[str]]:
    """(numbers that the translation lacks, numbers that it adds), each in its English spelling; protected spans must
    have been taken out of both texts."""
    left = Counter(english(source))
    if left == Counter(english(target)):  # left as they were
        return [], []
    target = re.sub(r"\b(\d+) em \1\b", r"\1", target)  # every 6 hours: de 6 em 6 horas
    for match in SPACED.findall(target):
        value = re.sub(r"[ \u00a0\u202f]", "", match).replace(",", ".")
        if left[value] > 0:
            left[value] -= 1
            target = target.replace(match, " ", 1)
    added = []
    tokens = TOKEN.findall(target)
    for rank in range(4):  # sure readings first, so that an ambiguous 1,234 takes what is left
        rest = []
        for token in tokens:
            options = readings(token)
            if rank < len(options) and left[options[rank]] > 0:
                left[options[rank]] -= 1
            else:
                rest.append(token)
        tokens = rest
    for token in tokens:
        explained = _listed(token, left) or _explained_addition(token, source, left)
        added += [] if explained else [token]
    missing = [value for value in left.elements() if not _in_words(value, source, target)]
    return missing, added


def _listed(token: str, left: Counter[str]) -> bool:
    """Numbers of the source that a comma or a point without a space holds together: "1,2 and 3"."""
    parts = Counter(re.findall(r"\d+", token))
    if len(token) == sum(map(len, parts)) or parts - left:
        return False
    left.subtract(parts)
    return True


def _explained_addition(token: str, source: str, left: Counter[str]) -> bool:
    """A number that only the translation writes in digits: a word of the source, a decade, a 12-hour time."""
    for reading in readings(token):
        if any(re.search(rf"\b{word}s?\b", source, re.IGNORECASE) for word in _words()[0].get(reading, ())):
            return True
        if not reading.isdigit():
            continue
        decade = next((v for v in left if left[v] > 0 and re.fullmatch(r"\d{4}", v) and v[2:] == reading), None)
        hour = str(int(reading) - 12)
        if decade and re.search(rf"\b{decade}'?s\b", source):
            left[decade] -= 1
            return True
        if left[hour] > 0 and re.search(rf"\b{hour}(?::\d\d)?\s*p\.?\s?m\b", source, re.IGNORECASE):
            left[hour] -= 1
            return True
        if reading == "00" and re.search(r"\b\d{1,2}\s*[ap]\.?\s?m\b", source, re.IGNORECASE):
            return True  # 5 pm -> 17h00
    return False


def _in_words(value: str, source: str, target: str) -> bool:
    """A number of the source that the translation writes as a word, or a century in Roman numerals."""
    if any(re.search(rf"\b{word}\b", target, re.IGNORECASE) for word in _words()[1].get(value, ())):
        return True
    ordinal = value.isdigit() and re.search(rf"\b{value}(?:st|nd|rd|th)\b", source)
    return bool(ordinal) and int(value) in {roman(numeral) for numeral in ROMAN.findall(target)}


def roman(numeral: str) -> int:
    """XIX -> 19."""
    values = [ROMAN_VALUES[letter] for letter in numeral]
    return sum(-v if any(v < later for later in values[i + 1 : i + 2]) else v for i, v in enumerate(values))


@lru_cache(maxsize=1)
def _words() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    rows = [line.split("\t") for line in (HERE / "number_words.tsv").read_text(encoding="utf-8").splitlines()]
    return {v: en.split("|") for v, en, _ in rows}, {v: pt.split("|") for v, _, pt in rows}


SCALES = (  # (English, what it is in pt-PT, what it is not): 10^9 is "mil milhões", and "bilião" is 10^12
    (r"\bbillions?\b|\b\d\s?bn\b", r"\bmil\s+milh(?:ão|ões)\b", r"\bbili(?:ão|ões)\b|\bbilh(?:ão|ões)\b"),
    (
        r"\btrillions?\b",
        r"\bbili(?:ão|ões)\b|\bmilh(?:ão|ões)\s+de\s+milhões\b",
        r"\btrili(?:ão|ões)\b|\btrilh(?:ão|ões)\b",
    ),
)


def scale_faults(source: str, target: str) -> list[str]:
    """Words of scale that were translated by sound: "2 billion" is "2 mil milhões", not "2 biliões"."""
    faults = []
    for english_word, right, wrong in SCALES:
        found = re.search(english_word, source, re.IGNORECASE)
        if found and (not re.search(right, target, re.IGNORECASE) or _more(wrong, target, source)):
            faults.append(found.group())
    return faults


def _more(wrong: str, target: str, source: str) -> bool:
    # "bilião" is right where the source has a trillion.
    return bool(re.search(wrong, target, re.IGNORECASE)) and not re.search(r"\btrillion", source, re.IGNORECASE)


def unit_faults(source: str, target: str) -> list[str]:
    """Units that stand beside a number in the source, and in the translation neither beside one nor as a word."""
    return [name for name, en, pt, word in _units() if en.search(source) and not pt.search(target) and not word(target)]


@lru_cache(maxsize=1)
def _units() -> list[tuple[str, re.Pattern[str], re.Pattern[str], Callable[[str], bool]]]:
    """(name, it beside a number in English, in pt-PT, whether it is written out anywhere: "cinco quilómetros")."""
    rows = [line.split("\t") for line in (HERE / "units.tsv").read_text(encoding="utf-8").splitlines()]
    return [(name, _beside(en), _beside(pt), _written_out(pt)) for name, en, pt in rows]


def _beside(forms: str) -> re.Pattern[str]:
    after = rf"\d[\s\u00a0\u202f-]?(?:{forms})(?![\w/²³])"
    before = rf"(?<!\w)(?:{forms})\s?\d" if re.search(r"[$€£¥]", forms) else r"(?!)"
    return re.compile(f"{after}|{before}")


def _written_out(forms: str) -> Callable[[str], bool]:
    pattern = re.compile(rf"(?<!\w)(?:{forms})(?!\w)")
    return lambda text: any(len(match.group()) > 2 for match in pattern.finditer(text))
