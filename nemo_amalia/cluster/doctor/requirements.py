"""What pyproject.toml pins against what is installed, read from both: no package is imported."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from nemo_amalia.utils.errors import EnvironmentProblem

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
        return self.installed is not None and release(self.installed) == release(self.pin)

    @property
    def fits_container(self) -> bool:
        """What a container brings is right as it is, but for SAME_MINOR."""
        if self.installed is None or self.name not in SAME_MINOR:
            return self.installed is not None
        return release(self.installed).split(".")[:2] == release(self.pin).split(".")[:2]

    @property
    def mend(self) -> str:
        """The command that installs it."""
        return f'uv pip install "{self.name}=={self.pin}"'


def release(version: str) -> str:
    """The numbers before any build tag: 2.11.0a0+nv26.08 -> 2.11.0."""
    numbers = version.split("+")[0]
    for mark in ("a", "b", "rc", ".dev", ".post"):
        numbers = numbers.split(mark)[0]
    return numbers


def installed_version(name: str) -> str | None:
    """None where there is no such package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirements() -> list[Requirement]:
    """Every pin of pyproject.toml, in its order, extras last. Raises EnvironmentProblem where that file is missing."""
    if not PYPROJECT.is_file():
        raise EnvironmentProblem(
            f"{PYPROJECT} is missing: nemo_amalia runs from its repository, installed with `make setup`"
        )
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    found = []
    for extra, lines in groups.items():
        for line in lines:
            name, _, pin = line.partition("==")
            found.append(Requirement(name.strip(), pin.strip(), extra, installed_version(name.strip())))
    return found
