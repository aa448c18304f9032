"""The guards of a translation: everything that must survive it, checked and not hoped for.

A guard takes a source and its translation and gives the fault in one Portuguese sentence, which is what the model is
asked again with, or None. Its name is the reason that the report and a drop carry.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.translation import formats, names, numbers, spans

SHORTEST_RATIO, LONGEST_RATIO = 0.5, 2.2  # characters, translation to source, from LONG_TEXT on; ours
LONG_TEXT = 40
COMMENTARY = re.compile(
    r"\s*(?:aqui está|aqui tem|segue(?:-se)?|eis) a(?:\s+\w+)?\s+tradução|\s*tradução(?:\s+\w+)*\s*:"
    r"|\s*(?:claro|com certeza)[,!][^\n]{0,60}:|\s*here(?:'s| is) the translation|\s*\(?nota do tradutor"
    r"|\s*\*\*tradução",
    re.IGNORECASE,
)
ENGLISH_COMMENTARY = re.compile(r"\s*(?:sure|certainly|of course|here(?:'s| is)|translation\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fault:
    """guard: the reason's name; detail: the sentence for the model and the report."""

    guard: str
    detail: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One text and its translation. role: who says it. glossary: terms of the conversation and their translations.
    evidence: the variety filter (nemo_amalia/variety/evidence.py: text -> Verdict with variety and evidence), or None.
    quotes: what stands in quotation marks is kept."""

    source: str
    target: str
    role: str = "user"
    glossary: Sequence[tuple[str, str]] = ()
    evidence: Callable[[str], Any] | None = None
    quotes: bool = False
    bare: tuple[str, str] = field(init=False, default=("", ""))

    def __post_init__(self) -> None:
        # Source and target without protected spans, computed once for all guards.
        object.__setattr__(self, "bare", tuple(spans.outside(t, self.quotes) for t in (self.source, self.target)))


def empty(pair: Pair) -> str | None:
    """Nothing came back."""
    return "a tradução está vazia" if pair.source.strip() and not pair.target.strip() else None


def protected(pair: Pair) -> str | None:
    """Image placeholders, boxes, LaTeX, code, addresses and tags: as many of each, unchanged."""
    ours, theirs = (
        Counter((span.kind, span.text) for span in spans.find(text, pair.quotes)) for text in (pair.source, pair.target)
    )
    if ours == theirs:
        return None
    lost, made = list((ours - theirs).elements()), list((theirs - ours).elements())
    return f"tem de ficar exatamente igual: em falta {_spans(lost)}; a mais {_spans(made)}"


def instruction(pair: Pair) -> str | None:
    """Answer-format instructions that have one pt-PT form in every data set (instructions.tsv)."""
    wanted = Counter(s.put for s in spans.find(pair.source, pair.quotes, fixed=True) if s.kind == "instruction")
    lost = [text for text, count in wanted.items() if pair.target.count(text) < count]
    return f"a instrução tem de ser «{lost[0]}»" if lost else None


def number(pair: Pair) -> str | None:
    """The same numbers."""
    missing, added = numbers.compare(*pair.bare)
    if not missing and not added:
        return None
    return f"os números mudaram: em falta {', '.join(missing) or 'nenhum'}; a mais {', '.join(added) or 'nenhum'}"


def scale(pair: Pair) -> str | None:
    """ "Billion" is "mil milhões"."""
    lost = numbers.scale_faults(*pair.bare)
    return f"«{lost[0]}» em português europeu: billion = mil milhões, trillion = bilião" if lost else None


def unit(pair: Pair) -> str | None:
    """The same units, not converted."""
    lost = numbers.unit_faults(*pair.bare)
    return f"as unidades não se convertem nem se omitem; em falta: {', '.join(lost)}" if lost else None


def name(pair: Pair) -> str | None:
    """Proper names, unless the glossary or Portuguese itself names them in another way."""
    declared = {term.casefold() for term, _ in pair.glossary}
    lost = [n for n in names.lost(*pair.bare) if not any(n.casefold() in d or d in n.casefold() for d in declared)]
    return f"os nomes próprios mantêm-se: {', '.join(lost)}" if lost else None


def option(pair: Pair) -> str | None:
    """Option letters, their order and their number."""
    return formats.option_fault(pair.source, pair.target)


def yes_no(pair: Pair) -> str | None:
    """A yes stays a yes."""
    return formats.yes_no_fault(pair.source, pair.target) if pair.role == "assistant" else None


def json_format(pair: Pair) -> str | None:
    """JSON stays JSON of the same shape."""
    return formats.json_fault(pair.source, pair.target)


def markdown(pair: Pair) -> str | None:
    """Headings, lists, tables, paragraphs."""
    return formats.markdown_fault(pair.source, pair.target)


def glossary(pair: Pair) -> str | None:
    """A term of the conversation is translated in the same way everywhere."""
    for term, translation in pair.glossary:
        inside = re.search(rf"(?<!\w){re.escape(term)}(?!\w)", pair.bare[0], re.IGNORECASE)
        if inside and not _inflected(translation).search(pair.bare[1]):
            return f"«{term}» traduz-se por «{translation}» em toda a conversa"
    return None


def commentary(pair: Pair) -> str | None:
    """The translation alone, without a word about it."""
    if ENGLISH_COMMENTARY.match(pair.source) or not COMMENTARY.match(pair.target):
        return None
    return "escreva apenas a tradução, sem a anunciar"


def length(pair: Pair) -> str | None:
    """Nothing left out and nothing added, as far as length shows."""
    ours, theirs = (len(text.strip()) for text in (pair.source, pair.target))
    low, high = (ours * SHORTEST_RATIO, ours * LONGEST_RATIO) if ours >= LONG_TEXT else (0, 4 * ours + LONG_TEXT)
    if low <= theirs <= high:
        return None
    return f"a tradução tem {theirs} carateres e o original {ours}: traduza tudo, sem resumir nem acrescentar"


def repetition(pair: Pair) -> str | None:
    """A model that turns in circles."""
    ours, theirs = (_most_repeated(text) for text in (pair.source, pair.target))
    return f"a tradução repete-se {theirs} vezes" if theirs >= 4 and theirs > ours + 2 else None


def untranslated(pair: Pair) -> str | None:
    """Still English."""
    found = re.findall(r"[a-zà-ÿ']+", pair.bare[1].casefold())
    english, portuguese = (sum(word in words for word in found) for words in _function_words())
    if english >= 2 and english > portuguese:
        return "o texto continua em inglês: traduza-o para português europeu"
    return None


def variety(pair: Pair) -> str | None:
    """European Portuguese, by the variety filter."""
    verdict = pair.evidence(pair.bare[1]) if pair.evidence else None
    if verdict is None or verdict.variety != "pt-BR":
        return None
    text = pair.bare[1]
    against = [item for item in verdict.evidence if getattr(item, "variety", "pt-BR") == "pt-BR"]
    shown = [f"«{text[item[0] : item[1]]}» ({item[3]})" for item in against[:5]]
    return f"o texto é português do Brasil; escreva em português europeu. Indícios: {'; '.join(shown) or 'o conjunto'}"


GUARDS: dict[str, Callable[[Pair], str | None]] = {
    guard.__name__: guard
    for guard in (
        empty, protected, instruction, number, scale, unit, name, option, yes_no, json_format, markdown, glossary,
        commentary, length, repetition, untranslated, variety,
    )
}  # fmt: skip


def check(pair: Pair, only: Sequence[str] = tuple(GUARDS)) -> list[Fault]:
    """Every fault of a translation, in the order of GUARDS; an empty one is only empty."""
    faults = []
    for guard in only:
        detail = GUARDS[guard](pair)
        if detail is not None:
            faults.append(Fault(guard, " ".join(detail.split())))
            if guard == "empty":
                break
    return faults


@lru_cache(maxsize=1)
def _function_words() -> tuple[frozenset[str], frozenset[str]]:
    """Words that only English has, and words that only Portuguese has."""
    lines = Path(__file__).with_name("function_words.tsv").read_text(encoding="utf-8").splitlines()
    english, portuguese = (frozenset(line.split("\t")[1].split()) for line in lines[:2])
    return english, portuguese


@lru_cache(maxsize=4096)
def _inflected(translation: str) -> re.Pattern[str]:
    """The translation, or another number or gender of it: the last two letters of a word are free."""
    stems = [re.escape(w if len(w) < 5 else w[: max(3, len(w) - 2)]) for w in re.findall(r"\w+", translation)]
    return re.compile(r"(?<!\w)" + r"\w*\W+".join(stems) + (r"\w*" if stems else ""), re.IGNORECASE)


def _most_repeated(text: str) -> int:
    words = text.casefold().split()
    grams = Counter(zip(*(words[i:] for i in range(5)), strict=False))
    longest = max((len(match.group()) // 10 for match in re.finditer(r"(\S)\1{29,}", text)), default=0)
    return max([longest, *grams.values()], default=0)


def _spans(found: Sequence[tuple[str, str]]) -> str:
    return ", ".join(text for _, text in found[:5]) or "nada"
