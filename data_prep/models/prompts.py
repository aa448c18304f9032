"""Prompts are files: data_prep/prompts/NAME.md, a version, the variables they take, and the text.

The text is a Jinja template, rendered strictly: a variable that is missing, unknown or not declared is an error. The
head of a file:

    ---
    version: 1
    language: pt-PT
    variables: [pergunta, resposta]
    ---
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nemo_amalia.utils.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[1] / "prompts"
HEAD = "---\n"
KEYS = {"version", "language", "variables"}
ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt file. hash: 12 hex digits of the sha256 of its text; with the name, what provenance keeps."""

    name: str
    text: str
    version: int
    language: str
    variables: tuple[str, ...]
    hash: str

    @property
    def id(self) -> str:
        """name@hash: Request.prompt."""
        return f"{self.name}@{self.hash}"

    def render(self, **values: object) -> str:
        """Return the text with its variables; values are never templates. ConfigError for missing or unknown ones."""
        missing, unknown = set(self.variables) - set(values), set(values) - set(self.variables)
        if missing or unknown:
            raise ConfigError(
                f"prompt {self.name} takes {sorted(self.variables)}; missing: {sorted(missing)}, "
                f"unknown: {sorted(unknown)}"
            )
        try:
            return ENVIRONMENT.from_string(self.text).render(**values)
        except TemplateError as error:
            raise ConfigError(
                f"prompt {self.name} cannot be rendered ({error}): mend its values or its file"
            ) from error


@lru_cache(maxsize=256)
def load(name: str, folder: Path = FOLDER) -> Prompt:
    """The prompt `name`; names may have folders ("translate/whole").

    Raises ConfigError when there is no such file, when its head is not as above, or when the text does not use exactly
    the variables that the head declares.
    """
    path = folder / f"{name}.md"
    if not path.is_file():
        raise ConfigError(f"no prompt {name!r} in {folder}; there are {names(folder)}")
    begin, *rest = path.read_text(encoding="utf-8").split(HEAD, 2)
    if begin or len(rest) != 2:
        raise ConfigError(f"prompt {name} has no head: begin {path.name} with --- lines that hold {sorted(KEYS)}")
    head, text = yaml.safe_load(rest[0]), rest[1].strip("\n")
    if not isinstance(head, dict) or set(head) != KEYS or not isinstance(head["version"], int):
        raise ConfigError(f"the head of prompt {name} is {head}; expected {sorted(KEYS)}, version a whole number")
    try:
        used = meta.find_undeclared_variables(ENVIRONMENT.parse(text))
    except TemplateError as error:
        raise ConfigError(f"prompt {name} is not a template ({error}): mend {path.name}") from error
    if used != set(head["variables"]):
        raise ConfigError(
            f"prompt {name} uses {sorted(used)} and declares {sorted(head['variables'])}: make them equal"
        )
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Prompt(name, text, head["version"], head["language"], tuple(head["variables"]), digest)


def names(folder: Path = FOLDER) -> list[str]:
    """Every prompt there is."""
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.md"))
