"""For tests that run programs in the sandbox: skipped by name where the isolator is not installed."""

import ctypes
import shutil

import pytest


def missing() -> list[str]:
    """Debian packages of the sandbox that this machine lacks."""
    lacks = [] if shutil.which("bwrap") else ["bubblewrap"]
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        lacks.append("libseccomp2")
    return lacks


needs_sandbox = pytest.mark.skipif(bool(missing()), reason=f"no sandbox: apt-get install {' '.join(missing())}")
