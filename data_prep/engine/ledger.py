"""Counts of every step, and the check that nothing was lost: in + added = out + merged + dropped by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemo_amalia.utils.errors import DataError

USAGE = ("calls", "cached", "tokens_in", "tokens_out", "cost")


def named(counts: Mapping[str, int]) -> str:
    """`too_short 3, blurred 1`, the most frequent first."""
    found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {number:,}" for name, number in found)


@dataclass
class StepCounts:
    """Samples of one step. added: beyond the first that one sample became; merged: into another at a barrier."""

    name: str
    into: int = 0
    out: int = 0
    added: int = 0
    merged: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, other: StepCounts) -> None:
        """Sums."""
        for name in ("into", "out", "added", "merged"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.dropped.update(other.dropped)

    def difference(self) -> int:
        """Samples that are accounted for nowhere; 0 where all is well."""
        return self.into + self.added - self.out - self.merged - self.dropped.total()

    def __str__(self) -> str:
        grown = f" + {self.added:,} added" if self.added else ""
        merged = f" + {self.merged:,} merged" if self.merged else ""
        return f"{self.into:,} in{grown} = {self.out:,} out{merged} + {self.dropped.total():,} dropped{self.reasons()}"

    def reasons(self) -> str:
        """` (too_short 3, blurred 1)`, the most frequent first; empty where nothing was dropped."""
        return f" ({named(self.dropped)})" if self.dropped else ""


@dataclass
class Ledger:
    """What some records of a phase came to: steps in their order, how many records and samples, model usage, and calls
    that failed and were sent again, by cause.
    """

    steps: list[StepCounts]
    records: int = 0
    samples: int = 0
    usage: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, names: Sequence[str]) -> Ledger:
        """Zeros for steps of these names."""
        return cls([StepCounts(name) for name in names])

    def add(self, other: Ledger) -> None:
        """Sums; both have the same steps."""
        for mine, others in zip(self.steps, other.steps, strict=True):
            mine.add(others)
        self.records += other.records
        self.samples += other.samples
        self.usage.update(other.usage)
        self.retried.update(other.retried)

    def dropped(self) -> Counter[str]:
        """Over all steps, by reason."""
        return sum((step.dropped for step in self.steps), Counter())

    def to_json(self) -> dict[str, Any]:
        """What from_json takes."""
        steps = [[s.name, s.into, s.out, s.added, s.merged, dict(s.dropped)] for s in self.steps]
        counts = {"records": self.records, "samples": self.samples, "steps": steps, "usage": dict(self.usage)}
        return counts | {"retried": dict(self.retried)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Ledger:
        """Of to_json."""
        steps = [StepCounts(*step[:5], Counter(step[5])) for step in content["steps"]]
        usage, retried = Counter(content["usage"]), Counter(content["retried"])
        return cls(steps, content["records"], content["samples"], usage, retried)

    def check(self, phase: str, records: int) -> None:
        """Raises DataError, naming phase, step and numbers, unless `records` records became `samples` samples and
        every one in between is counted.
        """
        where = f"counts of phase {phase} do not add up"
        if self.records != records:
            raise DataError(f"{where}: it has {records:,} records and {self.records:,} are done; run the command again")
        given, giver = self.records, "records"
        for step in self.steps:
            if step.into != given:
                raise DataError(f"{where}: {given:,} came out of {giver} and {step.into:,} went into {step.name}")
            if lost := step.difference():
                verb = "lost" if lost > 0 else "too many"
                raise DataError(f"{where}: {step.name}: {step}: {abs(lost):,} {verb}")
            given, giver = step.out, step.name
        if given != self.samples:
            raise DataError(f"{where}: {given:,} came out of {giver} and {self.samples:,} samples are stored")
