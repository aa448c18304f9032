"""Versions of installed packages, compared by `packaging`: release numbers without pre-release and build tags."""

from __future__ import annotations

from importlib import metadata

from nemo_amalia.utils.errors import EnvironmentProblem


def installed_version(name: str) -> str | None:
    """Return the version of an installed package as its metadata has it; None where there is no such package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def release(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version, without zeros at the end: 2.11.0a0+nv26.08 -> (2, 11).

    Raises:
        EnvironmentProblem: it is not a version number (PEP 440).
    """
    from packaging.version import InvalidVersion, Version

    try:
        numbers = Version(Version(version).base_version).release
    except InvalidVersion as error:
        raise EnvironmentProblem(
            f"{version!r} is not a version number: expected one as in 2.11.0 or 2.11.0a0+nv26.08; "
            "install a released version of the package"
        ) from error
    while len(numbers) > 1 and not numbers[-1]:
        numbers = numbers[:-1]
    return numbers


def minor_release(version: str) -> str:
    """Return major and minor number of a version: 2.11.0a0+nv26.08 -> 2.11. Raises as `release` does."""
    major, minor, *_ = (*release(version), 0)
    return f"{major}.{minor}"
