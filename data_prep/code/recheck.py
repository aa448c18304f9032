"""The independent check of an answer about code: from the finished conversation, by running the code again.

It shares nothing with the steps that wrote the conversation but the sandbox, a fresh one with other string hashes:
question and answer are read from the text, as a reader would. A conversation that fails is dropped as `recheck` with
all that were made of the same program.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from data_prep.engine import Drop, Sample
from data_prep.sandbox.pool import Limits, Sandbox
from nemo_amalia.utils.errors import DataError

BLOCK = re.compile(r"^(`{3,})[\w+]*\n(.*?)\n?^\1$", re.DOTALL | re.MULTILINE)
LETTER_BLOCK = re.compile(r"^([A-D])\)\n(`{3,})\w*\n(.*?)\n?^\2$", re.DOTALL | re.MULTILINE)
LETTER_LINE = re.compile(r"^([A-D])\) (.*)$", re.MULTILINE)
CHOSEN = re.compile(r"(?<!\w)([A-D])(?=[.):*]|\s*$)")  # "A opção ..." begins with an article
YES, NO = re.compile(r"(Sim|Yes)\b"), re.compile(r"(Não|No)\b")


class MismatchError(ValueError):
    """A conversation whose answer is not what the code does."""


class Recheck:
    """Runs programs for `verify`. hash_seed differs from those of execution.Executor."""

    name = "recheck"

    def __init__(self, workers: int, limits: Any) -> None:
        self._sandbox = Sandbox(workers, Limits(**limits), hash_seed=2)

    async def __call__(self, sample: Sample, run: Any) -> Sample:
        """A step: every variant of the sample, each in its `kind`."""
        for variant in sample["variants"]:
            question = variant["messages"][0]["content"][1]["text"]
            answer = variant["messages"][1]["content"]
            try:
                await asyncio.to_thread(verify, variant["kind"], question, answer, sample["program"], self.output)
            except MismatchError as error:
                raise Drop("recheck", str(error)) from error
        return sample

    def output(self, code: str) -> str | None:
        """What a program prints; None when it does not run to its end."""
        outcome = self._sandbox.run(code)
        return same(outcome.stdout) if outcome.ok else None

    def close(self) -> None:
        """Ends the interpreters."""
        self._sandbox.close()


def same(text: str) -> str:
    """Texts that differ only in blanks at the ends of lines, tabs and empty lines around are the same."""
    return "\n".join(line.rstrip() for line in text.expandtabs(4).splitlines()).strip("\n")


def verify(kind: str, question: str, answer: str, program: str, output: Callable[[str], str | None]) -> None:
    """Raises MismatchError unless the answer is right.

    kind: "direct" (the answer gives the output), "yes_no" (the question claims one), "choose_output" and "choose_code"
    (options; the program of the picture, or the output of the picture). output: runs a program.
    """
    truth = output(program)
    if truth is None:
        raise MismatchError("the program does not run any more")
    if kind == "direct":
        blocks = BLOCK.findall(answer)
        given = blocks[-1][1] if blocks else answer
        _equal(same(given), truth)
    elif kind == "yes_no":
        claimed = same(BLOCK.findall(question)[-1][1])
        said = YES if claimed == truth else NO
        if not said.match(answer):
            raise MismatchError(f"{answer[:40]!r} of a claim that is {'right' if said is YES else 'wrong'}")
        for block in BLOCK.findall(answer):
            _equal(same(block[1]), truth)
    elif kind in ("choose_output", "choose_code"):
        found = [(letter, text) for letter, _, text in LETTER_BLOCK.findall(question)] or LETTER_LINE.findall(question)
        outputs = {letter: same(text) if kind == "choose_output" else output(text) for letter, text in found}
        right = [letter for letter, text in outputs.items() if text == truth]
        chosen = CHOSEN.findall(BLOCK.sub("", answer))
        if len(outputs) != 4 or len(set(outputs.values())) != 4 or chosen[:1] != right or len(right) != 1:
            raise MismatchError(f"{chosen} chosen, {right} right, of {len(outputs)} options")
    else:
        raise DataError(f"unknown kind {kind!r}: expected direct, yes_no, choose_output or choose_code")


def _equal(given: str, truth: str) -> None:
    if given != truth:
        raise MismatchError(f"the answer gives {given[:80]!r}, the program {truth[:80]!r}")
