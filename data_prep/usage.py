"""`amalia-data NAME --help`: what a data set is, its commands, and its settings as conf/data_prep has them."""

from __future__ import annotations

import ast
import re
from typing import Any

import yaml

from data_prep.config import CONF, PIPELINES, compose, names

PAGE = "docs/data_prep.md"  # of a data set whose .yaml names no page of its own
COMMANDS = """  amalia-data {name} run [key=value ...]      from source to shards; after a kill, the same command again
  amalia-data {name} status [key=value ...]   how far it is: done, dropped by reason, calls, retries, tokens, cost"""


def usage(name: str) -> str:
    """The text. Raises ConfigError for a data set that is not there. Imports no pipeline: that takes seconds."""
    if name not in names():
        compose(name, [])  # its error names the nearest one
    own = (CONF / f"{name}.yaml").read_text(encoding="utf-8")
    groups, common = _defaults(own)
    parts = [about(name), COMMANDS.format(name=name)]
    parts.append(f"Settings, with their defaults (conf/data_prep/{name}.yaml); ??? has to be given:")
    parts.append(_indented(own))
    for file in common:
        text = (CONF / f"{file}.yaml").read_text(encoding="utf-8")
        parts.append(f"conf/data_prep/{file}.yaml, which it starts from:\n\n{_indented(text)}")
    parts += [f"{group}=  one of {', '.join(_choices(group))} (conf/data_prep/{group}/)" for group in groups]
    page = re.search(r"docs/[\w/]+\.md", own)
    return "\n\n".join([*parts, f"More: {page[0] if page else PAGE}"]) + "\n"


def about(name: str) -> str:
    """The docstring of a data set's pipeline, read and not imported."""
    source = PIPELINES / name / "pipeline.py"
    said = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
    return said or f"{name}: data_prep/pipelines/{name}/pipeline.py has no docstring."


def _defaults(text: str) -> tuple[list[str], list[str]]:
    """(groups to choose of, files that are taken whole) of a .yaml's list of defaults."""
    groups: list[str] = []
    files: list[str] = []
    entries: list[Any] = (yaml.safe_load(text) or {}).get("defaults", [])
    for entry in entries:
        if isinstance(entry, dict):
            groups += entry
        elif entry != "_self_":
            files.append(entry.partition("@")[0])
    return groups, files


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.strip().splitlines())
