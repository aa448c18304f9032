"""What pyproject.toml pins against what is installed, read from both: no package is imported but `packaging`."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nemo_amalia.utils.errors import EnvironmentProblem
from nemo_amalia.utils.files import quoted
from nemo_amalia.utils.releases import installed_version, minor_release, release
from nemo_amalia.utils.text import first_line

PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"
CONTAINER_ONLY = ("transformer-engine", "apex")
#: What our code was written against: a container may bring another patch of these, not another minor release.
SAME_MINOR = ("megatron-core", "megatron-bridge", "megatron-energon", "transformers")


@dataclass
class Requirement:
    """A pinned package: its extra (empty for what is always needed), the pin, and what is installed (None: nothing)."""

    name: str
    pin: str
    extra: str
    installed: str | None

    @property
    def fits(self) -> bool:
        """Whether the pinned release is installed, whatever its build tag (2.11.0+cu130, 2.11.0a0+nv26.08)."""
        return self._same(release)

    @property
    def fits_container(self) -> bool:
        """What a container brings is right as it is, but for SAME_MINOR."""
        if self.installed is None or self.name not in SAME_MINOR:
            return self.installed is not None
        return self._same(minor_release)

    def _same(self, part: Callable[[str], object]) -> bool:
        try:
            return self.installed is not None and part(self.installed) == part(self.pin)
        except EnvironmentProblem:  # not a version number: `seen` says so
            return False

    @property
    def seen(self) -> str:
        """What is installed, in words."""
        if self.installed is None:
            return "not installed"
        try:
            release(self.installed)
        except EnvironmentProblem:
            return f"installed: {self.installed}, which is not a version number"
        return f"installed: {self.installed}"

    @property
    def mend(self) -> str:
        """The command that installs it."""
        return f'uv pip install "{self.name}=={self.pin}"'


def requirements() -> list[Requirement]:
    """Every pin of pyproject.toml, in its order, extras last.

    Raises EnvironmentProblem where that file is missing, or a line of it is not a pin.
    """
    if not PYPROJECT.is_file():
        raise EnvironmentProblem(
            f"{quoted(PYPROJECT)} is missing: nemo_amalia runs from its repository, installed with `make setup`"
        )
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    found = []
    for extra, lines in groups.items():
        for line in lines:
            name, pin = _pin(line)
            found.append(Requirement(name, pin, extra, installed_version(name)))
    return found


def _pin(line: str) -> tuple[str, str]:
    """`name==version` -> both. Raises EnvironmentProblem for anything else."""
    from packaging.requirements import InvalidRequirement
    from packaging.requirements import Requirement as Parsed

    try:
        parsed, reason = Parsed(line), ""
    except InvalidRequirement as error:
        parsed, reason = None, f" ({first_line(error)})"
    pins = list(parsed.specifier) if parsed is not None else []
    if len(pins) != 1 or pins[0].operator != "==" or pins[0].version.endswith("*"):
        raise EnvironmentProblem(
            f"{quoted(PYPROJECT)} has the dependency {line!r}, expected one pinned version, as in name==1.2.3{reason}: "
            "correct that line"
        )
    return parsed.name, pins[0].version
