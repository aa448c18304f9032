"""``amalia data verify DIR``: are the shards of a folder what its manifest says?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nemo_amalia.data.shards.check import IMPORT_COUNTS, IMPORT_SETTINGS
from nemo_amalia.data.shards.manifest import MANIFEST, manifest, sha256_of, write_manifest
from nemo_amalia.utils.errors import DataError


def verify(folder: Path) -> tuple[int, int]:
    """Reads every shard again. Gives (shards, bytes). Raises DataError that names what differs."""
    _check_folder(folder)
    lines = manifest(folder)
    if not lines:
        shards = len(list(folder.glob("*.tar")))
        raise DataError(
            f"{folder} has {shards:,} shards and no {MANIFEST} with their checksums: "
            f"`amalia data verify {folder} --write` records them as they are now, to compare with later or elsewhere"
        )
    faults = []
    for line in lines:
        shard = folder / line["shard"]
        if not shard.is_file():
            faults.append(f"{shard.name} (missing)")
        elif shard.stat().st_size != line["bytes"]:
            faults.append(f"{shard.name} ({shard.stat().st_size:,} bytes instead of {line['bytes']:,})")
        elif sha256_of(shard) != line["sha256"]:
            faults.append(f"{shard.name} (another sha256)")
    known = {line["shard"] for line in lines}
    faults += [f"{path.name} (not in the manifest)" for path in sorted(folder.glob("*.tar")) if path.name not in known]
    if faults:
        raise DataError(
            f"{len(faults)} shards of {folder} are not as {MANIFEST} says: {', '.join(faults[:5])}"
            f"{' ...' if len(faults) > 5 else ''}: copy them again, or make them again in another folder"
        )
    return len(lines), sum(line["bytes"] for line in lines)


def record(folder: Path) -> int:
    """Writes the manifest of shards as they are now; gives their number. Raises UserError if there is one already."""
    _check_folder(folder)
    if manifest(folder):
        raise DataError(f"{folder} has a {MANIFEST} already: leave --write out to compare with it, or delete it first")
    if (folder / IMPORT_SETTINGS).is_file() and not (folder / IMPORT_COUNTS).is_file():
        raise DataError(f"{folder} is an import that has not ended: run the same `amalia data import` again")
    try:
        write_manifest(folder)
    except OSError as error:
        raise DataError(f"cannot write to {folder} ({error.strerror}): copy it to where you may write") from error
    return len(manifest(folder))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        seen = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"folder {folder} {seen}: give one that `amalia data import` or `amalia-data` wrote")
    if not any(folder.glob("*.tar")) and not (folder / MANIFEST).is_file():
        raise DataError(
            f"{folder} holds no shard (*.tar): give a folder that `amalia data import` or `amalia-data` wrote"
        )


def add_command(subparsers: Any) -> None:
    """`amalia data verify`."""
    check = subparsers.add_parser("verify", help="check the shards of a folder against their checksums")
    check.add_argument("folder", type=Path, help="shards of `amalia data import`, `amalia-data NAME run`, write_shards")
    check.add_argument("--write", action="store_true", help="no manifest yet: record the checksums as they are now")
    check.set_defaults(run=run_verify)


def run_verify(arguments: argparse.Namespace) -> int:
    """amalia data verify."""
    if arguments.write:
        print(f"{arguments.folder / MANIFEST}: checksums of {record(arguments.folder):,} shards as they are now")
        return 0
    shards, size = verify(arguments.folder)
    print(f"{arguments.folder}: {shards:,} shards, {size / 1e6:,.1f} MB, all as in {MANIFEST}")
    return 0
