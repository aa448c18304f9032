"""What a chunk of records has become so far, in one SQLite file: a finished record is one transaction.

A kill at any moment therefore leaves whole records and nothing else, and the primary key keeps any from being there
twice. SQLite's exclusive lock keeps a second process out and ends with its owner.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_amalia.utils.errors import DataError

TABLES = (
    "CREATE TABLE IF NOT EXISTS record (number INTEGER PRIMARY KEY, ledger TEXT NOT NULL, items TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS blob (number INTEGER, place INTEGER, data BLOB NOT NULL, PRIMARY KEY (number, place)) "
    "WITHOUT ROWID",
)
BLOB = "$bytes"


class Journal:
    """The records of one chunk that are done. Use as a context manager."""

    def __init__(self, path: Path, wait_seconds: float = 30) -> None:
        """Opens or makes it. Raises DataError where another process holds it for longer than `wait_seconds`."""
        self.path = path
        self._file = sqlite3.connect(path, timeout=wait_seconds, isolation_level=None)
        try:
            # Exclusive before WAL: no shared memory, which network file systems lack. WAL appends, and with `normal`
            # only sealing waits for the disk: a killed process loses nothing, a power cut at worst the last records.
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL"):
                self._file.execute(f"PRAGMA {pragma}").fetchall()
            self._file.execute("BEGIN EXCLUSIVE")
            for table in TABLES:
                self._file.execute(table)
            self._file.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._file.close()
            raise DataError(
                f"{path} is in use by another process ({error}): wait for it, or end it, then run the command again"
            ) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def done(self) -> dict[int, dict[str, Any]]:
        """Record number -> what `add` was given as its ledger."""
        rows = self._file.execute("SELECT number, ledger FROM record ORDER BY number")
        return {number: json.loads(ledger) for number, ledger in rows}

    def add(self, number: int, ledger: dict[str, Any], items: list[dict[str, Any]]) -> None:
        """A finished record, whole or not at all. Raises TypeError on values that are neither JSON nor bytes, and
        sqlite3.Error where it cannot be written.
        """
        blobs: list[bytes] = []
        packed = json.dumps(_pack(items, blobs), ensure_ascii=False, separators=(",", ":"))
        counted = json.dumps(ledger, ensure_ascii=False, separators=(",", ":"))
        self._file.execute("BEGIN")
        try:
            self._file.execute("INSERT INTO record VALUES (?, ?, ?)", (number, counted, packed))
            self._file.executemany("INSERT INTO blob VALUES (?, ?, ?)", [(number, i, b) for i, b in enumerate(blobs)])
        except BaseException:
            if self._file.in_transaction:  # SQLite itself takes everything back where the disk is full
                self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")

    def seal(self) -> None:
        """Brings everything to the disk, into the one file."""
        self._file.execute("PRAGMA journal_mode=DELETE").fetchall()


class SealedJournal:
    """Reads a journal that nobody writes any more."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(f"{path} is missing: its run cannot be finished without it; restore it, or begin a new run")
        self._file = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)

    def close(self) -> None:
        """Releases the file."""
        self._file.close()

    def records(self, blobs: bool = True) -> Iterator[tuple[int, dict[str, Any], list[dict[str, Any]]]]:
        """(number, ledger, items) in the order of their numbers; without `blobs`, bytes are None."""
        for number, ledger, items in self._file.execute("SELECT * FROM record ORDER BY number"):
            yield number, json.loads(ledger), self._unpacked(number, items, blobs)

    def items(self, number: int) -> list[dict[str, Any]]:
        """Of one record."""
        (items,) = self._file.execute("SELECT items FROM record WHERE number = ?", (number,)).fetchone()
        return self._unpacked(number, items, True)

    def _unpacked(self, number: int, items: str, blobs: bool) -> list[dict[str, Any]]:
        if BLOB not in items:
            return json.loads(items)
        rows = self._file.execute("SELECT place, data FROM blob WHERE number = ?", (number,)) if blobs else ()
        return _unpack(json.loads(items), dict(rows))


def _pack(value: Any, blobs: list[bytes]) -> Any:
    """A copy with {"$bytes": place} where bytes were, which go into `blobs`."""
    if isinstance(value, bytes):
        blobs.append(value)
        return {BLOB: len(blobs) - 1}
    if isinstance(value, dict):
        return {name: _pack(one, blobs) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(one, blobs) for one in value]
    return value


def _unpack(value: Any, blobs: dict[int, bytes]) -> Any:
    if isinstance(value, dict):
        if len(value) == 1 and BLOB in value:
            return blobs.get(value[BLOB])
        return {name: _unpack(one, blobs) for name, one in value.items()}
    if isinstance(value, list):
        return [_unpack(one, blobs) for one in value]
    return value
