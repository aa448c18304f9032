"""Portuguese text -> sentences. Libraries that split sentences have no Portuguese rules (pysbd) or download a model.

A dot ends a sentence unless what stands before it is an abbreviation (abbreviations.tsv), an initial or the number of a
list, and only where what follows could begin a sentence. A row ("\\n") ends one, too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

# What may end a sentence: marks, what closes after them, and white space.
END = re.compile(r"(?P<marks>[.!?…]+)(?P<close>[»”’\"')\]]*)(?=\s|$)|(?P<row>)(?=\n)")
OPEN = "«“‘\"'([¿¡"
DASH = "—–-"
ACRONYM = re.compile(r"(?:\w\.)+\w")
TOKEN = re.compile(r"[^\s«“‘\"'(\[—–]*$")
NUMBER = re.compile(r"\d|[IVXLCDM]+\b|n\.º|s/n", re.IGNORECASE)


@lru_cache(maxsize=1)
def _abbreviations() -> dict[str, str]:
    lines = (Path(__file__).with_name("abbreviations.tsv")).read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines if line and not line.startswith("#"))


def sentences(text: str) -> list[str]:
    """The sentences of a text in order, each without white space around it. Nothing but white space is lost."""
    found, start = [], 0
    for end in END.finditer(text):
        if end.end() <= start and end["row"] is None:
            continue
        if end["row"] is not None or _ends(text, end, start):
            if piece := text[start : end.end()].strip():
                found.append(piece)
            start = end.end()
    if piece := text[start:].strip():
        found.append(piece)
    return found


def _ends(text: str, end: re.Match[str], start: int) -> bool:
    rest = text[end.end() :]
    if not rest.strip() or rest.lstrip(" ").startswith("\n"):
        return True
    following = rest.lstrip()
    if not _may_begin(following):
        return False
    if end["marks"] != "." or end["close"]:
        return True
    before = text[start : end.start()]
    token = TOKEN.search(before)[0]
    if len(token) == 1 and token.isupper():  # an initial: J. Saramago
        return False
    if token.isdigit() and before.strip() == token:  # the number of a list: 2. Ligue o forno
        return False
    kind = _abbreviations().get(token) or ("ending" if ACRONYM.fullmatch(token) else None)
    if kind == "number":
        return not NUMBER.match(following)
    return kind != "title"


def _may_begin(following: str) -> bool:
    """Whether a sentence could begin so: a capital or a digit, after opening marks or the dash of a dialogue."""
    opened = following.lstrip(OPEN)
    if opened[:1] in DASH and opened[1:2].isspace():
        opened = opened[1:].lstrip().lstrip(OPEN)
    return opened[:1].isupper() or opened[:1].isdigit()
