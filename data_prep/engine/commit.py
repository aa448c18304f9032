"""Which code made a sample."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("data_prep", "conf/data_prep", "nemo_amalia/data", "nemo_amalia/utils", "nemo_amalia/variety")


def pipeline_commit() -> str:
    """The commit of this checkout, with -dirty where pipelines or their configuration differ from it; without git the
    version of the installed package.
    """
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("-dirty" if _git("status", "--porcelain", "--", *CODE) else "")
    except (OSError, subprocess.CalledProcessError):
        try:
            return f"nemo_amalia-{version('nemo_amalia')}"
        except PackageNotFoundError:
            return "unknown"


def short(commit: str) -> str:
    """Twelve characters, and whether the code differed from it."""
    return commit.removesuffix("-dirty")[:12] + ("-dirty" if commit.endswith("-dirty") else "")


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()
