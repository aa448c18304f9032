"""What the code data sets share of a conversation: turns, choices with letters, and the sample that a shard holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_prep.code.filters import SPECIAL
from data_prep.code.wording import fenced
from data_prep.engine import Drop, Sample

LETTERS = "ABCD"


def turns(question: str, answer: str) -> list[dict[str, Any]]:
    """A picture with a question, and the answer. Parts, not a string: code may hold the word <image>.

    Drops text in which a tokenizer would find a mark of its own, as special_token.
    """
    for text in (question, answer):
        if SPECIAL.search(text):
            raise Drop("special_token")
    asked = [{"type": "image"}, {"type": "text", "text": question}]
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def listed(options: Sequence[str], programming: str = "") -> str:
    """Options under the letters A to D: on a line each where all are short, else in code blocks."""
    if not programming and all(_short(option) for option in options):
        return "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
    blocks = (fenced(option, programming) for option in options)
    return "\n\n".join(f"{letter})\n{block}" for letter, block in zip(LETTERS, blocks, strict=False))


def _short(option: str) -> bool:
    return "\n" not in option and option == option.strip() and 0 < len(option) <= 60


def placed(rng: Any, right: str, wrong: Sequence[str]) -> tuple[list[str], str]:
    """(options in the order of their letters, the letter of the right one): each letter equally often."""
    options = list(wrong)
    rng.shuffle(options)
    position = rng.randrange(len(options) + 1)
    options.insert(position, right)
    return options, LETTERS[position]


def spread(sample: Sample, run: Any) -> list[Sample]:
    """The conversations in "variants" as samples of their own; all of them or, earlier, none."""
    shared = {name: sample[name] for name in ("images", "language")}
    return [shared | variant for variant in sample["variants"]]
