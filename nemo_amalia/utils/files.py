"""Files and folders that are there whole or not at all, and JSON that names its file when it cannot be read."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_amalia.utils.errors import DataError, EnvironmentProblem
from nemo_amalia.utils.text import one_line


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
        EnvironmentProblem: `path` already holds something, or cannot be made.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise EnvironmentProblem(
            f"the output folder {quoted(path)} exists and is not empty: choose another one, or remove it first"
        )
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise EnvironmentProblem(
            f"the output folder {quoted(path)} cannot be written ({error.strerror}): choose one that you may write to"
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


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        DataError: it cannot be read, or holds something else; the message names it.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{quoted(path)} cannot be read ({error.strerror}): check the path") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{quoted(path)} is corrupt or truncated ({error}): restore it, or remove it") from error
    if not isinstance(content, dict):
        raise DataError(f"{quoted(path)} holds a JSON {type(content).__name__}, expected an object: restore it")
    return content


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object per line; a last line that a kill cut short is left out.

    Raises:
        DataError: a line before the last is no JSON object; the message names file and line.
    """
    path = Path(path)
    lines = path.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"{quoted(path)} line {number} is corrupt ({error}): restore it, or remove it") from error
    return found


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file as plain values: no tag in it becomes code.

    Raises:
        DataError: it cannot be read, or is not valid YAML; the message names it.
    """
    import yaml

    path = Path(path)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{quoted(path)} cannot be read ({error.strerror}): check the path") from error
    except (UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{quoted(path)} is not valid YAML ({one_line(error, 300)}): correct it") from error


def quoted(path: str | Path) -> str:
    """Return a path so that it can be pasted into a shell."""
    return shlex.quote(str(path))


def _partial(path: Path) -> Path:
    # Not the process id alone: ranks on several nodes may share it, and the folder.
    return path.with_name(f".{path.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}")
