"""Release numbers of versions, whatever is appended to them."""

import pytest

from nemo_amalia.utils.errors import EnvironmentProblem
from nemo_amalia.utils.releases import installed_version, minor_release, release


@pytest.mark.parametrize(
    ("version", "plain", "minor"),
    [
        ("2.11.0a0+nv26.08", "2.11.0", "2.11"),
        ("25.1rc1", "25.1", "25.1"),
        ("25.1c1", "25.1", "25.1"),
        ("2.0.0-alpha", "2.0.0", "2.0"),
        ("7.4.1.post2.dev3", "7.4.1", "7.4"),
        ("0", "0", "0.0"),
    ],
)
def test_odd_versions(version, plain, minor):
    assert str(release(version)) == plain and minor_release(version) == minor


@pytest.mark.parametrize("version", ["", "main", "2.11.x", "v", "2..1"])
def test_what_is_no_version_is_named(version):
    with pytest.raises(EnvironmentProblem) as info:
        release(version)
    assert str(info.value).startswith(f"{version!r} is not a version number: expected one as in 2.11.0")


def test_installed_version():
    assert installed_version("packaging") and installed_version("no-such-package") is None
