"""One conversation under way: what is accepted, what is wrong with the rest, and the terms it has settled on."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from data_prep.translation import formats
from data_prep.translation.guards import Fault, Pair, check
from data_prep.translation.guards import glossary as glossary_guard
from data_prep.translation.segments import Segment, as_option
from data_prep.translation.spans import MarkError, unmask

MARKS = "marks"  # the fault of a translation that loses a mark; the others are guards.GUARDS and model_REASON
SHORTEST_TERM = 3


@dataclass(slots=True)
class Work:
    """segments: of the sample. done: accepted translations by segment; faults, tried: of the others, the latest.
    history: (role, guard) of every fault on the way. models, prompts: who translated, by what."""

    segments: list[Segment]
    evidence: Callable[[str], Any] | None = None
    quotes: bool = False
    done: dict[int, str] = field(default_factory=dict)
    faults: dict[int, list[Fault]] = field(default_factory=dict)
    tried: dict[int, str] = field(default_factory=dict)
    history: list[tuple[str, str]] = field(default_factory=list)
    glossary: list[tuple[str, str]] = field(default_factory=list)
    models: dict[int, str] = field(default_factory=dict)
    prompts: set[str] = field(default_factory=set)

    @property
    def open(self) -> list[int]:
        """Segments that a model must still translate."""
        return [
            i
            for i, segment in enumerate(self.segments)
            if segment.settled is None and segment.follows is None and i not in self.done
        ]

    def text(self, index: int) -> str:
        """The translation of a segment that is not open."""
        segment = self.segments[index]
        if segment.follows is not None:
            question, option = segment.follows
            return as_option(segment.text, formats.options(self.done[question])[option][1])
        return self.done[index] if segment.settled is None else segment.settled

    def offer(self, index: int, text: str, role: str, model: str) -> None:
        """Checks one translation (with marks) and keeps it, or keeps what is wrong with it."""
        segment = self.segments[index]
        before, after = segment.masked.edges
        target = before + text.strip() + after
        try:
            target = unmask(target, segment.masked)
            pair = Pair(segment.text, target, segment.role, tuple(self.glossary), self.evidence, self.quotes)
            faults = check(pair)
        except MarkError as error:
            faults = [Fault(MARKS, str(error))]
        self.models[index] = model
        self.tried[index] = target
        if faults:
            self.fail(index, faults, role)
        else:
            self.faults.pop(index, None)
            self.done[index] = target

    def fail(self, index: int, faults: list[Fault], role: str) -> None:
        """What is wrong with a segment."""
        self.history += [(role, fault.guard) for fault in faults]
        self.faults[index] = faults

    def adopt(self, entries: list[tuple[str, str]], offered: dict[int, str]) -> None:
        """Takes the glossary's terms that the conversation has and that most of the texts that hold them use: those
        that are accepted, and those that were offered with it. The first translation of a term stays."""
        known = {term.casefold() for term, _ in self.glossary}
        texts = {**offered, **self.done}
        for term, translation in ((term.strip(), translation.strip()) for term, translation in entries):
            if len(term) < SHORTEST_TERM or not translation or term.casefold() in known:
                continue
            holds = re.compile(rf"(?<!\w){re.escape(term)}(?!\w)", re.IGNORECASE)
            with_term = [i for i in texts if holds.search(self.segments[i].text)]
            pairs = [(i, Pair(self.segments[i].text, texts[i], glossary=[(term, translation)])) for i in with_term]
            against = [i for i, pair in pairs if glossary_guard(pair) is not None]
            if 2 * len(against) < len(with_term) and not any(i in self.done for i in against):
                self.glossary.append((term, translation))
                known.add(term.casefold())
