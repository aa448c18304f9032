"""Check a folder of shards before anything reads it."""

from __future__ import annotations

import shlex
from pathlib import Path

from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.files import read_json

IMPORT_SETTINGS = "import.json"  # amalia data import begins a folder with it ...
IMPORT_COUNTS = "counts.json"  # ... and ends with this

PREPARE = "--non-interactive --split-ratio 1,0,0 --sample-type CrudeWebdataset --num-workers 1 --no-progress"


def prepare_arguments(folder: str | Path) -> list[str]:
    """The words after `energon prepare` that index a folder of shards."""
    return [str(folder), *PREPARE.split()]


def prepare_command(folder: str | Path) -> str:
    """The same as one line to paste into a shell, whatever blanks the folder's name has."""
    return shlex.join(["energon", "prepare", *prepare_arguments(folder)])


def check_folder(folder: str | Path, called: str = "data.path") -> Path:
    """The absolute folder of prepared shards, or the metadataset file, given. called: where the user wrote it.

    Raises DataError when it is missing, empty, or not prepared, with the command that mends it.
    """
    path = Path(folder).absolute()
    if not path.exists():
        raise DataError(f"data folder {path} does not exist: check {called}")
    if path.is_file():
        if path.suffix not in (".yaml", ".yml"):
            raise DataError(f"{path} is a file: expected a folder of shards or a metadataset .yaml")
        return path
    if (path / IMPORT_SETTINGS).is_file() and not (path / IMPORT_COUNTS).is_file():
        raise DataError(f"data folder {path} is an import that has not ended: run the same `amalia data import` again")
    if not any(path.rglob("*.tar")):
        raise DataError(f"data folder {path} holds no .tar shard: write some with nemo_amalia.data.shards.write_shards")
    meta = path / ".nv-meta"
    if not (meta / "dataset.yaml").is_file() or not (meta / "split.yaml").is_file():
        raise DataError(f"data folder {path} has shards but no index: run `{prepare_command(path)}`")
    counts = read_json(meta / ".info.json").get("shard_counts", {}) if (meta / ".info.json").is_file() else {}
    if counts and not sum(counts.values()):
        raise DataError(f"the shards of data folder {path} hold no samples")
    missing = [name for name in counts if not (path / name).is_file()]
    if missing:
        raise DataError(
            f"data folder {path} lacks {len(missing)} of its {len(counts)} shards ({missing[0]} first): "
            "copy it "
            f"again, or index what is there with `{prepare_command(path)} --force-overwrite`"
        )
    return path
