"""Folders: a source that is looked at before it is read, and output that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def check_hf_folder(folder: Path, option: str, holds: str) -> None:
    """Raise ValueError where ``folder`` cannot be an HF model: looked at by name, at once, before anything is imported.

    option: the word of the command line that named it; holds: what it should hold.
    """
    folder = Path(folder)
    if not folder.is_dir():
        seen = "is a file" if folder.exists() else "does not exist"
        raise ValueError(
            f"{option} {folder} {seen}: expected a folder on this machine that holds {holds}; check the path, or "
            "download the model first"
        )
    wanted = {"config.json": (folder / "config.json").is_file(), "*.safetensors": any(folder.glob("*.safetensors"))}
    missing = [name for name, there in wanted.items() if not there]
    if missing:
        names = sorted(path.name for path in folder.iterdir())
        seen = ", ".join(names[:4]) + (f" and {len(names) - 4:,} more" if len(names) > 4 else "") or "nothing"
        raise ValueError(
            f"{option} {folder} holds {seen}, and no {' and no '.join(missing)}: expected {holds} as transformers' "
            "save_pretrained writes it; name that folder, or copy what is missing"
        )


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
