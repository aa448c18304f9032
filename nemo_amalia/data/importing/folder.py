"""The folder that an import writes: shards cut by size, and what is needed to go on after a kill.

import.json     the command's settings, written first: another command may not go on here
shard-*.tar     written to a temporary name, fsynced, renamed
manifest.jsonl  a line for each finished shard: samples, images, bytes, sha256, and the position in the source after it
dropped.jsonl   a line for each record that became no sample; its length at a shard's end stands in the manifest
counts.json     records in, samples out, drops by reason; written last, when Energon's index is there
.seen.sqlite    digests of the samples, to find repeated ones without holding them in memory; removed at the end

A shard exists once its line is in the manifest. Whatever came after the last line is cut off and read again, and since
nothing but the source and the settings decides what is written, the result is that of a run that was never killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_amalia.data.shards.check import IMPORT_COUNTS, IMPORT_SETTINGS
from nemo_amalia.data.shards.manifest import MANIFEST, manifest
from nemo_amalia.data.shards.totals import Totals, scan
from nemo_amalia.data.shards.write import add_parts, prepare_folder, sample_parts
from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.files import partials, quoted, read_json, write_json

VERSION = 2  # of what lies in the folder; one of another number is refused
DROPPED, SEEN = "dropped.jsonl", ".seen.sqlite"
PARTIAL = ".partial"


class HashedFile:
    """A file that is only appended to, with the sha256 and the number of its bytes so far."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, open(path, "wb")
        self._hash, self.size = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.size

    def close(self) -> str:
        """Puts the bytes on the disk and gives their sha256."""
        _to_disk(self._file)
        self._file.close()
        return self._hash.hexdigest()

    def abandon(self) -> None:
        """Lets go of the file, whatever state it is in: the disk may be full, and the next run begins it again."""
        with contextlib.suppress(OSError):
            self._file.close()


class ImportFolder:
    """Opens a new folder, or one that the same settings began.

    After opening, `source_file` and `record` say where to read on: the index of the source file, and how many of
    its records are done. `add` or `drop` each record, then `advance`; `close_shard` and `finish` at the end.
    Raises DataError on a folder of something else, one begun with other settings, and one in use.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], shard_bytes: int) -> None:
        self.folder, self.shard_bytes = folder.absolute(), shard_bytes
        self._max_image_pixels = settings["max_image_pixels"]
        self.source_file, self.record, self.read = 0, 0, 0
        self.shards, self.samples, self.images, self.bytes = 0, 0, 0, 0
        self.dropped: Counter[str] = Counter()
        self._shard: HashedFile | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder, os.O_RDONLY)  # held until the process ends
        try:
            self._open(dict(settings))
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self, settings: dict[str, Any]) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            name = self.folder
            raise DataError(f"another import is writing to {name}: wait for it, or choose another --out") from error
        self._claim(settings)
        self.finished = (self.folder / IMPORT_COUNTS).is_file()
        kept = self._read_manifest()
        if not self.finished:
            self._cut_back(kept)
        self._dropped = open(self.folder / DROPPED, "ab")
        self._totals = None if self.shards else Totals()  # of a restart they are read from the shards at the end

    def _claim(self, settings: dict[str, Any]) -> None:
        file = self.folder / IMPORT_SETTINGS
        if not file.is_file():
            if set(self.folder.iterdir()) - set(partials(self.folder)):
                raise DataError(f"{self.folder} holds something else than an import: choose another --out")
            write_json(file, {"version": VERSION} | settings, indent=1, sync=True)
            return
        begun = read_json(file)
        if (version := begun.pop("version", None)) != VERSION:
            raise DataError(
                f"{quoted(file)} has format {version}, expected {VERSION}: remove {quoted(self.folder)} and run this "
                "command again, or choose another --out"
            )
        for name in sorted(begun.keys() | settings.keys()):
            was, now = begun.get(name), settings.get(name)
            if was != now:
                raise DataError(
                    f"{self.folder} was begun with {name} {_said(was)} and this command has {_said(now)}: "
                    "give what it was begun with, or another --out"
                )

    def _read_manifest(self) -> int:
        """Takes the position from the manifest; gives the length of the dropped.jsonl that belongs to it."""
        kept = 0
        for line in manifest(self.folder):
            self.shards += 1
            self.samples += line["samples"]
            self.images += line["images"]
            self.bytes += line["bytes"]
            self.source_file, self.record = line["position"]["file"], line["position"]["records"]
            self.read, kept, self.dropped = line["read"], line["dropped_bytes"], Counter(line["dropped"])
            shard = self.folder / line["shard"]
            if not shard.is_file() or shard.stat().st_size != line["bytes"]:
                raise DataError(f"{shard} is not as its manifest says: remove {self.folder} and import again")
        return kept

    def _cut_back(self, dropped_bytes: int) -> None:
        whole = sum(len(_line(line)) for line in manifest(self.folder))
        for path, length in ((self.folder / MANIFEST, whole), (self.folder / DROPPED, dropped_bytes)):
            with open(path, "ab") as file:
                file.truncate(length)
        for path in (*self.folder.glob(f"*{PARTIAL}"), *partials(self.folder)):
            path.unlink()
        if self.shards and not (self.folder / SEEN).is_file():
            raise DataError(f"{self.folder / SEEN} is missing: remove {self.folder} and import again")
        self._seen = sqlite3.connect(self.folder / SEEN)
        self._seen.execute("PRAGMA cache_size=-16000")  # KiB
        self._seen.execute("CREATE TABLE IF NOT EXISTS seen (digest BLOB PRIMARY KEY, shard INTEGER) WITHOUT ROWID")
        self._seen.execute("DELETE FROM seen WHERE shard >= ?", (self.shards,))
        self._seen.commit()

    def add(self, key: str, sample: Mapping[str, Any]) -> bool:
        """Writes a sample; False when an equal one is there already (same turns, same pictures)."""
        parts = sample_parts(key, sample)
        digest = _digest(sample)
        if self._seen.execute("SELECT 1 FROM seen WHERE digest = ?", (digest,)).fetchone():
            return False
        size = sum(512 + -(-len(data) // 512) * 512 for _, data in parts)  # tar's blocks
        if self._shard and self._shard.size + size > self.shard_bytes:
            self.close_shard()
        if not self._shard:
            self._shard = HashedFile(self.folder / f"shard-{self.shards:06d}.tar{PARTIAL}")
            self._tar = tarfile.open(fileobj=self._shard, mode="w", format=tarfile.USTAR_FORMAT)
            self._in_shard = [0, 0]
        self._seen.execute("INSERT INTO seen VALUES (?, ?)", (digest, self.shards))
        add_parts(self._tar, parts)
        if self._totals:
            self._totals.add(sample["messages"], sample["images"], self._max_image_pixels)
        self._in_shard[0] += 1
        self._in_shard[1] += len(parts) - 1
        return True

    def drop(self, where: Mapping[str, Any], reason: str, message: str) -> None:
        """Counts a record that became no sample, and writes down which and why."""
        self.dropped[reason] += 1
        self._dropped.write(_line({**where, "reason": reason, "message": message}))

    def advance(self, source_file: int, record: int) -> None:
        """Record `record` of this source file is done, counted from 0."""
        self.source_file, self.record, self.read = source_file, record + 1, self.read + 1

    def close_shard(self) -> None:
        """Finishes the shard that is open, if one is: from here on a restart begins after it."""
        if not self._shard:
            return
        self._tar.close()
        digest, partial = self._shard.close(), self._shard.path
        samples, images = self._in_shard
        _to_disk(self._dropped)
        self._seen.commit()  # before the manifest has the shard: what is too much is deleted at a restart
        shard = partial.with_suffix("")
        partial.rename(shard)
        os.fsync(self._lock)
        line = {
            "shard": shard.name,
            "samples": samples,
            "images": images,
            "bytes": self._shard.size,
            "sha256": digest,
            "position": {"file": self.source_file, "records": self.record},
            "read": self.read,
            "dropped": dict(sorted(self.dropped.items())),
            "dropped_bytes": self._dropped.tell(),
        }
        with open(self.folder / MANIFEST, "ab") as file:
            file.write(_line(line))
            _to_disk(file)
        self.shards, self.samples, self.images = self.shards + 1, self.samples + samples, self.images + images
        self.bytes, self._shard = self.bytes + self._shard.size, None
        print(
            f"{shard.name}  {samples:,} samples  {line['bytes'] / 1e6:,.1f} MB  {self.read:,} records read", flush=True
        )

    def counts(self) -> dict[str, Any]:
        """{"in", "out", "dropped": {reason: records}, "images", "shards", "bytes"}; in = out + all that was dropped."""
        if self.finished:
            return read_json(self.folder / IMPORT_COUNTS)
        dropped = dict(sorted(self.dropped.items()))
        out = self.samples + (self._in_shard[0] if self._shard else 0)
        return {
            "in": self.read,
            "out": out,
            "dropped": dropped,
            "images": self.images,
            "shards": self.shards,
            "bytes": self.bytes,
        }

    def finish(self) -> None:
        """Indexes the shards for Energon, writes what they add up to, and closes the import."""
        shutil.rmtree(self.folder / ".nv-meta", ignore_errors=True)  # of a run killed here
        prepare_folder(self.folder)
        if self._totals:
            self._totals.write(self.folder)
        else:
            scan(self.folder, max_image_pixels=self._max_image_pixels)
        _to_disk(self._dropped)
        write_json(self.folder / IMPORT_COUNTS, self.counts(), indent=1, sync=True)
        self._seen.close()
        (self.folder / SEEN).unlink()

    def close(self) -> None:
        """Lets go of the files; what is not finished stays for the next run."""
        if self._shard:
            self._shard.abandon()
        self._dropped.close()
        if not self.finished:
            self._seen.close()
        os.close(self._lock)


def _digest(sample: Mapping[str, Any]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    texts = [sample.get(name) for name in ("messages", "chosen", "rejected")]
    for part in (json.dumps(texts).encode(), *sample["images"]):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def _said(value: Any, most: int = 3) -> str:
    """A setting in words; of files their names and sizes, a folder's being 0."""
    if not isinstance(value, list | tuple):
        return "none" if value in (None, "") else str(value)
    words = [str(item) if isinstance(item, str) else _file_said(*item) for item in value]
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more or "none"


def _file_said(name: str, size: int) -> str:
    return f"{name} ({size:,} bytes)" if size else name


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
