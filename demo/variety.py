"""Which variety an answer about a drawing is written in: forms of the closed list of demo/scenes/drawings.py.

A form is a word or a construction that the other variety would write otherwise. (A filter for any text is issue 6's.)
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from demo.errors import DemoError
from demo.scenes.drawings import PHRASES, THINGS, VARIETIES, Drawing
from demo.scenes.scenes import COLOURS
from demo.score import is_correct

DRAWINGS = "desenhos"  # source of the records that are about drawings
#: variety -> its forms.
FORMS = {
    variety: (*(thing.names[variety][1] for thing in THINGS.values()), *constructions)
    for variety, constructions in zip(VARIETIES, (("a mostrar", "a ver-se"), ("mostrando", "se vendo")), strict=True)
}
_SEARCH = {
    variety: re.compile(r"(?<!\w)(" + "|".join(map(re.escape, forms)) + r")(?!\w)", re.IGNORECASE)
    for variety, forms in FORMS.items()
}
assert all(_SEARCH[v].search(text.format(x="")) for said in PHRASES.values() for v, text in said.items())


@dataclass(frozen=True)
class Forms:
    """Forms of each variety in some answers, and how many answers had none of either."""

    portuguese: int = 0
    brazilian: int = 0
    answers: int = 0
    neither: int = 0

    def __add__(self, other: "Forms") -> "Forms":
        return Forms(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def brazilian_share(self) -> float:
        """pt-BR forms over all forms, in 0..1; 1 where there is none, for nothing said is nothing corrected."""
        found = self.portuguese + self.brazilian
        return self.brazilian / found if found else 1.0


def spans(text: str) -> list[tuple[int, int, str]]:
    """(begin, end, variety) of every form, in order."""
    return sorted((m.start(), m.end(), variety) for variety, search in _SEARCH.items() for m in search.finditer(text))


def forms_of(text: str) -> Forms:
    """Of one answer."""
    found = [variety for _, _, variety in spans(text)]
    return Forms(found.count("pt-PT"), found.count("pt-BR"), 1, int(not found))


def forms(records: Iterable[dict]) -> Forms:
    """Of the predictions of the records that are about drawings."""
    return sum((forms_of(r["prediction"]) for r in records if r["source"] == DRAWINGS), Forms())


def line(name: str, found: Forms) -> str:
    """One line for a terminal."""
    return (
        f"{name}: {found.brazilian_share:.1%} of the forms are pt-BR ({found.brazilian:,} of "
        f"{found.brazilian + found.portuguese:,}, in {found.answers:,} answers, {found.neither:,} without any)"
    )


def named(records: Iterable[dict]) -> tuple[int, int]:
    """(answers about drawings, those that are one of the two right answers)."""
    mine = [record for record in records if record["source"] == DRAWINGS]
    return len(mine), sum(any(is_correct(r["prediction"], right) for right in _right(r)) for r in mine)


def _right(record: dict) -> list[str]:
    """The right answer in each variety; a record has the pt-PT one."""
    question = record["question"]
    drawn = (Drawing(thing, colour) for thing in THINGS for colour in COLOURS)
    found = next((d for d in drawn if d.answer(question, "pt-PT") == record["answer"]), None)
    if found is None:
        raise DemoError(f"{record['answer']!r} answers {question!r} about no drawing: ask again with this version")
    return [found.answer(question, variety) for variety in VARIETIES]
