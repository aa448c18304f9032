"""The manifest of a folder of shards: a line per shard with its size and sha256."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from nemo_amalia.utils.files import atomic_file, read_json_lines

MANIFEST = "manifest.jsonl"  # a line for each shard, with its sha256: what amalia data verify compares


def write_manifest(folder: Path) -> None:
    """A line for each shard as it is now: name, bytes, sha256. Whole or not at all."""
    with atomic_file(folder / MANIFEST) as partial, open(partial, "w") as lines:
        for shard in sorted(folder.glob("*.tar")):
            line = {"shard": shard.name, "bytes": shard.stat().st_size, "sha256": sha256_of(shard)}
            lines.write(json.dumps(line) + "\n")


def sha256_of(path: Path) -> str:
    """Of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest(folder: Path) -> list[dict[str, Any]]:
    """The finished shards of a folder, in order; a last line that was cut off does not count."""
    file = folder / MANIFEST
    return read_json_lines(file) if file.is_file() else []
