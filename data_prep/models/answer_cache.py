"""Answers by the content of the question: nothing is asked twice, also after kill -9 and from several processes.

One SQLite file. In WAL mode (local disks) readers never wait; on a cluster's file system, where WAL's shared memory
does not work between hosts, `journal="delete"` uses plain locks. Either way an answer is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from nemo_amalia.utils.errors import ConfigError

JOURNALS = ("wal", "delete")
BUSY_SECONDS = 60  # what a writer waits for another process's lock


def content_key(**content: Any) -> str:
    """sha256 (64 hex digits) of the JSON of everything that decides an answer; raises TypeError on what is not JSON."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class AnswerCache:
    """key -> a JSON object, in `folder`/answers.sqlite. The first writer of a key wins, so that all readers agree.

    Raises ConfigError when the file is not a cache or the folder cannot be written.
    """

    def __init__(self, folder: str | Path, journal: str = "wal") -> None:
        if journal not in JOURNALS:
            raise ConfigError(f"journal={journal!r}; expected one of {JOURNALS}")
        self.path, self.journal = Path(folder).absolute() / "answers.sqlite", journal
        self._pid, self._reader, self._writer = 0, None, None
        self._read_lock, self._write_lock = threading.Lock(), threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connect()
        except (OSError, sqlite3.DatabaseError) as error:
            raise ConfigError(
                f"{self.path} cannot be used as a cache ({error}): choose another folder, or move the file away"
            ) from error

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer, or None. Takes some 20 µs."""
        self._connect()
        with self._read_lock:  # statements of two threads on one connection would share one, older, view of the file
            return _read(self._reader, key)

    def put(self, key: str, value: dict[str, Any]) -> dict[str, Any]:
        """Stores an answer and gives back the stored one: another process's, when that came first."""
        self._connect()
        text = json.dumps(value, ensure_ascii=False)
        with self._write_lock, self._writer:
            self._writer.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (bytes.fromhex(key), text))
            return _read(self._writer, key)

    def __len__(self) -> int:
        self._connect()
        return self._reader.execute("SELECT count(*) FROM answers").fetchone()[0]

    def close(self) -> None:
        """Closes the file; the next call opens it again."""
        for connection in (self._reader, self._writer):
            if connection is not None and self._pid == os.getpid():
                connection.close()
        self._pid, self._reader, self._writer = 0, None, None

    def _connect(self) -> None:
        if self._pid == os.getpid():
            return
        # A connection must not cross a fork: the child opens its own and leaves the parent's alone.
        self._read_lock, self._write_lock = threading.Lock(), threading.Lock()
        self._reader, self._writer = self._open(), self._open()
        self._pid = os.getpid()

    def _open(self) -> sqlite3.Connection:
        """SQLite waits for other processes' locks, but not where two change a new file's journal at once: the loser is
        told "locked" in no time. It only has to ask again.
        """
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return self._opened()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, check_same_thread=False)
        with contextlib.ExitStack() as on_error:
            on_error.callback(connection.close)
            connection.execute(f"PRAGMA journal_mode={self.journal}")
            connection.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing; a power cut, seconds
            connection.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID")
            connection.commit()
            on_error.pop_all()
        return connection


def _read(connection: sqlite3.Connection, key: str) -> dict[str, Any] | None:
    rows = connection.execute("SELECT value FROM answers WHERE key = ?", (bytes.fromhex(key),)).fetchall()
    return json.loads(rows[0][0]) if rows else None
