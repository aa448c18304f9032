"""What the models were asked and what it cost: counters by role, summed over processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class RoleCounts:
    """Counts of one role.

    asked = answered + cached + sum(failed). calls: requests that were sent; retried: calls that failed and were sent
    again, by cause; reasked: answers that their schema refused. tokens and cost: of the calls, not of the cache.
    """

    asked: int = 0
    answered: int = 0
    cached: int = 0
    calls: int = 0
    reasked: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    retried: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, other: RoleCounts) -> None:
        """Adds another process's counts."""
        for name in ("asked", "answered", "cached", "calls", "reasked", "tokens_in", "tokens_out", "cost", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.retried.update(other.retried)
        self.failed.update(other.failed)

    def reconcile(self, role: str) -> None:
        """Raises ConfigError when a request is neither answered, cached nor failed."""
        ended = self.answered + self.cached + self.failed.total()
        if self.asked != ended:
            raise RuntimeError(
                f"role {role}: {self.asked} requests and {ended} ends: a request was lost, which is a bug"
            )


class Counters(dict[str, RoleCounts]):
    """RoleCounts by role; a role appears when it is first asked."""

    def __missing__(self, role: str) -> RoleCounts:
        self[role] = RoleCounts()
        return self[role]

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Plain numbers, for JSON."""
        return {
            role: {
                name: dict(value) if isinstance(value, Counter) else value
                for name in RoleCounts.__slots__
                for value in (getattr(counts, name),)
            }
            for role, counts in sorted(self.items())
        }

    def merge(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds what another process's as_dict gave."""
        for role, counts in values.items():
            counters = {name: Counter(counts[name]) for name in ("retried", "failed")}
            self[role].add(RoleCounts(**{**counts, **counters}))
