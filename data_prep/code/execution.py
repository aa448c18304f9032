"""What a program prints, when a reader of the program could know it; and programs that print another thing.

Everything runs in the sandbox, twice: with two seeds of Python's string hashes, in two interpreters. What differs
between the two runs (clocks, random numbers, addresses, the order of a set of strings) is no answer to a question.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from data_prep.sandbox.pool import Limits, Outcome, Sandbox
from nemo_amalia.utils.errors import DataError

ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
UNPRINTABLE = re.compile(r"[^\n\t -~\u00a0-\u024f\u2010-\u2026\u20ac\u0391-\u03c9]")


class UnusableError(ValueError):
    """An execution that gives no answer; `reason` is a name for the counts."""

    def __init__(self, reason: str, note: str = "") -> None:
        super().__init__(f"{reason}: {note}" if note else reason)
        self.reason, self.note = reason, note


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an output may be to be shown and asked for: characters in all, lines, and columns of the longest."""

    characters: int
    lines: int
    columns: int


def program(code: str, invocation: str) -> str:
    """A function with its call, as it is run and shown: what the call gives is printed."""
    return f"{code.rstrip()}\n\n\n{printed(invocation)}\n"


def printed(invocation: str) -> str:
    """The statement that is shown."""
    return f"print({invocation})"


class Executor:
    """Runs programs and keeps those whose output is an answer. May be called from several threads.

    limits: fields of sandbox.Limits. Raises DataError on an unknown one.
    """

    def __init__(self, workers: int, limits: Mapping[str, Any], bounds: Bounds) -> None:
        if unknown := set(limits) - {field.name for field in fields(Limits)}:
            raise DataError(
                f"sandbox limits {sorted(unknown)} are unknown: there are {[f.name for f in fields(Limits)]}"
            )
        self._pools = [Sandbox(workers, Limits(**limits), hash_seed) for hash_seed in (0, 1)]
        self._bounds = bounds

    def output(self, code: str) -> str:
        """What the program prints, without the newlines at its end. Raises UnusableError naming why it is no answer."""
        first = self._pools[0].run(code)
        text = self._answer(first)
        again = self._pools[1].run(code)
        if (again.stdout, again.error, again.limit) != (first.stdout, first.error, first.limit):
            raise UnusableError("not_deterministic")
        return text

    def run_once(self, code: str) -> str:
        """What our own code around a program prints, whatever it looks like. Raises UnusableError."""
        outcome = self._pools[0].run(code)
        if not outcome.ok:
            raise UnusableError(f"limit_{outcome.limit}" if outcome.limit else "raised", outcome.error or "")
        return outcome.stdout

    async def output_async(self, code: str) -> str:
        """As output, in a thread."""
        return await asyncio.to_thread(self.output, code)

    def others(self, programs: Iterable[str], taken: Iterable[str], number: int, tries: int) -> list[tuple[str, str]]:
        """(program, output) of the first `number` programs whose outputs are none of `taken` nor each other's.

        tries: programs to run at most. Raises UnusableError ("few_distractors") when there are not enough.
        """
        seen, found = {comparable(text) for text in taken}, []
        for _, code in zip(range(tries), programs, strict=False):
            try:
                text = self.output(code)
            except UnusableError:
                continue
            if comparable(text) not in seen:
                seen.add(comparable(text))
                found.append((code, text))
                if len(found) == number:
                    return found
        raise UnusableError("few_distractors", f"{len(found)} of {number}")

    def close(self) -> None:
        """Ends the interpreters."""
        for pool in self._pools:
            pool.close()

    def _answer(self, outcome: Outcome) -> str:
        if outcome.limit:
            raise UnusableError(f"limit_{outcome.limit}")
        if outcome.error:
            raise UnusableError("raised", outcome.error[:200])
        text, bounds = outcome.stdout.rstrip("\n"), self._bounds
        lines = text.split("\n")
        if text.strip() in ("", "None"):
            raise UnusableError("no_output")
        if len(text) > bounds.characters or len(lines) > bounds.lines or max(map(len, lines)) > bounds.columns:
            raise UnusableError("output_too_long", f"{len(text)} characters, {len(lines)} lines")
        if ADDRESS.search(text):
            raise UnusableError("address_in_output")
        if UNPRINTABLE.search(text) or any(line != line.rstrip() for line in lines):
            raise UnusableError("unprintable")  # a picture does not show a blank at the end of a line
        return text


def comparable(text: str) -> str:
    """Outputs that a picture does not tell apart are equal here."""
    return "\n".join(line.rstrip() for line in text.expandtabs(4).split("\n")).strip("\n")
