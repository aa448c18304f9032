"""``amalia data verify DIR``: are the shards of a folder what its manifest says?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nemo_amalia.data.import_folder import manifest
from nemo_amalia.data.shards import MANIFEST, sha256_of


def verify(folder: Path) -> tuple[int, int]:
    """Reads every shard again. Gives (shards, bytes). Raises ValueError that names what differs."""
    if not folder.is_dir():
        seen = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"folder {folder} {seen}: give one that `amalia data import` or `amalia-data` wrote")
    lines = manifest(folder)
    if not lines:
        raise ValueError(
            f"{folder} has no finished shard in a {MANIFEST}: `amalia data import` and `amalia-data NAME run` write one"
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
        raise ValueError(
            f"{len(faults)} shards of {folder} are not as {MANIFEST} says: {', '.join(faults[:5])}"
            f"{' ...' if len(faults) > 5 else ''}: copy them again, or make them again in another folder"
        )
    return len(lines), sum(line["bytes"] for line in lines)


def add_command(subparsers: Any) -> None:
    """`amalia data verify`."""
    check = subparsers.add_parser("verify", help="check the shards of a folder against their checksums")
    check.add_argument("folder", type=Path, help="what `amalia data import` or `amalia-data NAME run` wrote")
    check.set_defaults(run=run_verify)


def run_verify(arguments: argparse.Namespace) -> int:
    """amalia data verify."""
    shards, size = verify(arguments.folder)
    print(f"{arguments.folder}: {shards:,} shards, {size / 1e6:,.1f} MB, all as in {MANIFEST}")
    return 0
