"""Files and folders that are there whole or not at all, and JSON that names its file when it cannot be read."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_file(path: str | Path, sync: bool = False) -> Iterator[Path]:
    """Yield a new path beside `path` to write to; it replaces `path` when the block ends well, else it is removed.

    Args:
        path: the file to make, and its folder where it does not exist.
        sync: wait until the bytes are on the disk before the rename, for what must survive a power cut.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        if sync:
            with open(partial, "rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new folder to write into; it becomes `path` when the block ends well, else it is removed.

    Raises:
        ValueError: `path` already holds something, or cannot be made.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"the output folder {path} exists and is not empty: choose another one, or remove it first")
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise ValueError(
            f"the output folder {path} cannot be written ({error.strerror}): choose one that you may write to"
        ) from error
    try:
        yield partial
        if path.exists():
            path.rmdir()
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partials(folder: Path) -> list[Path]:
    """List what a killed process left of an atomic write in `folder`."""
    return sorted(folder.glob(".*.partial-*"))


def write_text(path: str | Path, text: str, sync: bool = False) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_file(path, sync) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any, indent: int | None = None, sync: bool = False) -> None:
    """Write a JSON file atomically, with a newline at its end and letters beyond ASCII as they are."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=indent) + "\n", sync)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: the file is not valid JSON; the message names it.
        OSError: it cannot be read.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is corrupt or truncated ({error}): restore it, or remove it") from error


def _partial(path: Path) -> Path:
    # Not the process id alone: ranks on several nodes may share it, and the folder.
    return path.with_name(f".{path.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}")
