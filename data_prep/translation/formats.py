"""The form of an answer: options, yes and no, JSON, Markdown. Each function gives what differs, or None."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

OPTION = re.compile(r"^[ \t]*(?P<mark>\(?[A-J][).:]\)?|[A-J](?=\s+-\s))[ \t]+(?P<text>\S.*?)[ \t]*$", re.MULTILINE)
INLINE = re.compile(r"\(([A-J])\)")
REFERENCE = re.compile(r"\b(?:answer|option|choice)s?\b[^.\n?]{0,20}?[\s(*](?P<letter>[A-J])(?=[\s).,:;*!?]|$)")
LETTER = re.compile(r"\(?([A-Ja-j])[).:]?\)?")
YES_NO = re.compile(r"\s*(yes|no)\b(?=\s*(?:[,.;:!]|$))", re.IGNORECASE)
SIM_NAO = {"yes": "sim", "no": "não"}


def options(text: str) -> list[tuple[str, str]]:
    """(mark, text) of each option line, in order: "A. a cat" -> ("A.", "a cat")."""
    return [(match["mark"], match["text"]) for match in OPTION.finditer(text)]


def option_fault(source: str, target: str) -> str | None:
    """Other option marks, another order, an option without text, or two options that became one."""
    ours, theirs = options(source), options(target)
    if [mark for mark, _ in ours] != [mark for mark, _ in theirs]:
        return f"opções {_marks(ours)} no original e {_marks(theirs)} na tradução"
    letters, kept = Counter(INLINE.findall(source)), Counter(INLINE.findall(target))
    if letters != kept:
        return (
            f"letras entre parênteses {sorted(letters.elements())} no original e {sorted(kept.elements())} na tradução"
        )
    if len({text.casefold() for _, text in theirs}) < len({text.casefold() for _, text in ours}):
        return "duas opções diferentes ficaram iguais"
    lost = [m["letter"] for m in REFERENCE.finditer(source) if not re.search(rf"(?<!\w){m['letter']}(?!\w)", target)]
    return f"falta a letra {', '.join(lost)} da resposta" if lost else None


def yes_no_fault(source: str, target: str) -> str | None:
    """An answer that begins with yes or no and comes back without, or the other way round."""
    found = YES_NO.match(source)
    if not found:
        return None
    expected = SIM_NAO[found.group(1).lower()]
    if re.match(rf"\s*{expected}\b", target, re.IGNORECASE):
        return None
    return f"a resposta começa por «{found.group(1)}» e tem de começar por «{expected.capitalize()}»"


def short_answer(text: str) -> str | None:
    """The pt-PT form of an answer that is nothing but yes or no, with its capitals and its full stop; else None."""
    match = re.fullmatch(r"(\s*)(yes|no)(\.?\s*)", text, re.IGNORECASE)
    if not match:
        return None
    word = SIM_NAO[match[2].lower()]
    word = word.upper() if match[2].isupper() else word.capitalize() if match[2][0].isupper() else word
    return f"{match[1]}{word}{match[3]}"


def json_fault(source: str, target: str) -> str | None:
    """A source that is a JSON object or list and a translation with other keys, lengths, numbers, or none at all."""
    ours = _json(source)
    if not isinstance(ours, dict | list):
        return None
    theirs = _json(target)
    if theirs is None:
        return "o original é JSON e a tradução não"
    return None if _shape(ours) == _shape(theirs) else "o JSON mudou: chaves, comprimentos ou valores não textuais"


def markdown_fault(source: str, target: str) -> str | None:
    """Another number of headings, items, table rows and columns, bold spans, or paragraphs."""
    ours, theirs = _structure(source), _structure(target)
    for what in ours:
        if ours[what] != theirs[what]:
            return f"{what}: {ours[what]} no original e {theirs[what]} na tradução"
    return None


def _structure(text: str) -> dict[str, Any]:
    lines = text.strip().split("\n")
    return {
        "parágrafos": len(re.findall(r"\n[ \t]*\n(?=[^\n])", text.strip())) + 1,
        "títulos": [len(m.group(1)) for line in lines if (m := re.match(r"(#{1,6})\s", line))],
        "itens de lista": sum(bool(re.match(r"\s*[-*+•]\s", line)) for line in lines),
        "itens numerados": [m.group(1) for line in lines if (m := re.match(r"\s*(\d+[.)])\s", line))],
        "colunas de tabela": [line.count("|") for line in lines if line.strip().startswith("|")],
        "destaques **": len(re.findall(r"\*\*", text)),
    }


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text.strip()[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        return None


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shape(inner) for inner in value]
    return "text" if isinstance(value, str) else repr(value)


def _marks(found: list[tuple[str, str]]) -> str:
    return " ".join(mark for mark, _ in found) or "nenhuma"
