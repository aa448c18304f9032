"""Versions of installed packages, compared by `packaging`: releases, without pre-release and build tags."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from nemo_amalia.utils.errors import EnvironmentProblem

if TYPE_CHECKING:
    from packaging.version import Version


def installed_version(name: str) -> str | None:
    """Return the version of an installed package as its metadata has it; None where there is no such package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def release(version: str) -> Version:
    """Return the release of a version: 2.11.0a0+nv26.08 -> 2.11.0, which equals 2.11.

    Raises:
        EnvironmentProblem: it is not a version number (PEP 440).
    """
    from packaging.version import InvalidVersion, Version

    try:
        return Version(Version(version).base_version)
    except InvalidVersion as error:
        raise EnvironmentProblem(
            f"{version!r} is not a version number: expected one as in 2.11.0 or 2.11.0a0+nv26.08; "
            "install a released version of the package"
        ) from error


def minor_release(version: str) -> str:
    """Return major and minor number of a version: 2.11.0a0+nv26.08 -> 2.11. Raises as `release` does."""
    found = release(version)
    return f"{found.major}.{found.minor}"
