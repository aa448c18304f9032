"""The words of questions and answers: templates in a YAML file, by kind and language (pt-PT, en), drawn by chance.

kind:
  pt-PT: ["Quanto é {a}?", ...]
  en: ["How much is {a}?", ...]
"""

from __future__ import annotations

import random
import string
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

from nemo_amalia.utils.errors import DataError

LANGUAGES = ("pt-PT", "en")


class Wording:
    """The templates of one data set.

    file: a YAML file as above. Raises DataError on a kind that lacks a language, or whose templates of both languages
    do not take the same values.
    """

    def __init__(self, file: Path) -> None:
        self._kinds: Mapping[str, Mapping[str, list[str]]] = yaml.safe_load(file.read_text(encoding="utf-8"))
        for kind, languages in self._kinds.items():
            if set(languages) != set(LANGUAGES) or not all(languages.values()):
                raise DataError(f"{file}: {kind} has templates in {sorted(languages)}; expected some in {LANGUAGES}")
            taken = {frozenset(_fields(text)) for texts in languages.values() for text in texts}
            if len(taken) > 1:
                raise DataError(f"{file}: the templates of {kind} take different values: {[sorted(t) for t in taken]}")

    def draw(self, rng: random.Random, kind: str, language: str, **values: str) -> str:
        """One template of `kind`, filled. Values are put in as they are: braces in them mean nothing."""
        return rng.choice(self._kinds[kind][language]).format_map(values)


@cache
def load(file: Path) -> Wording:
    """The wording of a file, read once a process."""
    return Wording(file)


def language_of(rng: random.Random, portuguese: float) -> str:
    """ "pt-PT" with that share, else "en"."""
    return LANGUAGES[rng.random() >= portuguese]


def fenced(text: str, language: str = "") -> str:
    """A code block of Markdown; its fence is longer than any in the text."""
    longest = max((len(run) for run in text.split("\n") if set(run.strip()) == {"`"} and run.strip()), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _fields(text: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(text) if name]
