"""Output folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A new folder to write into, which becomes ``out`` when the block ends well and vanishes when it does not.

    Raises ValueError when ``out`` holds something already or cannot be made.
    """
    out = Path(out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"the output folder {out} exists and is not empty: give another one, or remove it first")
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise ValueError(
            f"the output folder {out} cannot be written ({error.strerror}): give one that you may write to"
        ) from error
    try:
        yield partial
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
