"""The list of samples to leave out: written beside a run, one JSON line a dropped sample, and read by the next.

A line is {"folder", "index", "shard", "key", "reason", "message"}. A sample is known again by the random id of its data
set's index, wherever the folder lies by then, or by the folder, whatever its index. {"unlisted": n} counts n samples
that were dropped too fast to be listed.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from nemo_amalia.data.faults.board import Fault
from nemo_amalia.utils.errors import DataError


def index_of(folder: str) -> str:
    """The id that `energon prepare` gave the index of a folder; empty where there is none."""
    file = Path(folder) / ".nv-meta" / "index.uuid"
    return file.read_text().strip() if file.is_absolute() and file.is_file() else ""


_known_index = functools.lru_cache(maxsize=1024)(index_of)  # for every sample: no file is read twice


def write_faults(out: IO[str], faults: Iterable[Fault], missing: int = 0) -> None:
    """Appends faults as lines. missing: dropped samples that are not among them."""
    for fault in faults:
        line = {
            "folder": fault.source,
            "index": _known_index(fault.source),
            "shard": fault.shard,
            "key": fault.key.rsplit("/", 1)[-1],
            "reason": fault.reason,
            "message": fault.message,
        }
        out.write(json.dumps(line, ensure_ascii=False) + "\n")
    if missing:
        out.write(json.dumps({"unlisted": missing}) + "\n")


class Quarantine:
    """Samples to leave out. path: a .jsonl, or a folder of them (a run's quarantine/).

    Raises DataError naming the file and the line that is not one of write_faults.
    """

    def __init__(self, path: str | Path) -> None:
        files = sorted(Path(path).glob("*.jsonl")) if Path(path).is_dir() else [Path(path)]
        if not files or not files[0].is_file():
            raise DataError(f"data.quarantine {path} is no .jsonl file and no folder of them: name a run's quarantine/")
        self._samples: set[tuple[str, str, str]] = set()  # (index id or folder, shard, key)
        distinct: set[tuple[str, str, str]] = set()
        for file in files:
            for number, text in enumerate(file.read_text().splitlines(), start=1):
                try:
                    line = json.loads(text)
                    if "unlisted" in line:
                        continue
                    places, sample = [line["index"], line["folder"]], (line["shard"], line["key"])
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(
                        f"line {number} of {file} is not of a quarantine list ({type(error).__name__}: {error}): "
                        "delete the line, or write the list again with a run"
                    ) from error
                self._samples |= {(place, *sample) for place in places if place}
                distinct.add((places[0] or places[1], *sample))
        self.size = len(distinct)
        self.fingerprint = hashlib.sha256(repr(sorted(distinct)).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self.size

    def holds(self, folder: str, shard: str, key: str) -> bool:
        """Whether the sample is listed. key: with or without its shard before it."""
        key = key.rsplit("/", 1)[-1]
        return (folder, shard, key) in self._samples or (_known_index(folder), shard, key) in self._samples
