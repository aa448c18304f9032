"""What a saved dataloader state depends on: which data, and how it was cut. Of anything else it means nothing."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_amalia.data.faults.quarantine import index_of
from nemo_amalia.data.shards.check import check_folder
from nemo_amalia.data.shards.metadataset import write_blend
from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.files import read_yaml

# kind of stream in the version of its state -> how a run resumes that had it
OTHER_STREAM = {"energon": "resume without data.pack_index, or ", "pack index": "resume with data.pack_index, or "}


def check_version(state: Any, own: str) -> None:
    """Refuse the saved state of another kind of stream, or of another version of the program.

    Args:
        state: what a stream saved.
        own: the version that this stream writes: its kind, a space, and a number.

    Raises:
        DataError: its version is another one; the message names both.
    """
    saved = state.get("version") if isinstance(state, dict) else None
    if saved == own:
        return
    kind = str(saved).rpartition(" ")[0]
    resume = "" if own.startswith(kind) else OTHER_STREAM.get(kind, "")
    raise DataError(
        f"the dataloader state of this checkpoint (run_dir/data_state) has format {saved!r}, expected {own!r}: "
        f"{resume}begin the data again with data.start_anew_at=STEP of that checkpoint and accept that samples are "
        "seen again"
    )


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`num_workers was 2 and is 4`, for each value that differs."""
    names = [*now, *(name for name in saved if name not in now)]
    return [
        f"{name} was {_shown(saved.get(name))} and is {_shown(now.get(name))}"
        for name in names
        if saved.get(name) != now.get(name)
    ]


def resolve(path: str | Path | Sequence[tuple[str | Path, float]]) -> tuple[str, Any]:
    """What Energon is to read, and what identifies that data in a saved dataloader state.

    Raises DataError on data that is not there or not prepared.
    """
    if isinstance(path, str | Path):
        source = check_folder(path)
        return str(source), _identity(source)
    blend = [(Path(folder).absolute(), float(weight)) for folder, weight in path]
    folder = Path(tempfile.mkdtemp(prefix="nemo_amalia-blend-"))
    source = write_blend(blend, folder / "blend.yaml")
    return str(source), [[_identity(part), weight] for part, weight in blend]


def _identity(source: Path) -> str:
    """`energon prepare` gives each index a random id; a metadataset is its text and the ids of its folders."""
    if not source.is_file():
        return index_of(str(source)) or source.name
    content, text = read_yaml(source), source.read_text(encoding="utf-8")
    return text + "".join(f"\n# {_identity(folder)}" for folder in _folders(content, source))


def _folders(content: Any, file: Path) -> list[Path]:
    """What a metadataset names by path, in order."""
    if isinstance(content, list):
        return [folder for item in content for folder in _folders(item, file)]
    if not isinstance(content, dict):
        return []
    own = [(file.parent / content["path"]).absolute()] if isinstance(content.get("path"), str) else []
    return own + [folder for item in content.values() for folder in _folders(item, file)]


def _shown(value: Any) -> str:
    """A value in an error: the text of a metadataset is long, and its end may be what differs."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:40]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
