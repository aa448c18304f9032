"""Rows of .json, .jsonl, .parquet, .csv and .tsv files, one after the other, in the order of the file.

Memory does not grow with the file: a JSON list is parsed a value at a time, parquet a few rows at a time. One row is
held whole, and may have at most 16 million characters of JSON.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from nemo_amalia.data.importing.formats.records import BadRecordError
from nemo_amalia.utils.errors import DataError

CHUNK = 1 << 18  # characters
MAX_RECORD = 16_000_000  # characters: a longer "record" is a file of another shape
PARQUET_ROWS = 8
SPLITS = re.compile(r"(train|test|validation|valid|val|dev)(?![a-z])")
TEXT = {".json", ".jsonl", ".ndjson"}
TABLES = {".csv", ".tsv"}
#: The columns that some format reads; the others of a parquet file are left on disk.
COLUMNS = {
    *("id", "key", "language", "messages", "conversations", "texts", "video", "videos"),
    *("image", "images", "image_path", "file_name", "filename", "jpg", "path"),
    *("caption", "captions", "text", "description"),
    *("prompt", "question", "chosen", "rejected"),
}


def find_files(source: Path, suffixes: set[str]) -> list[Path]:
    """The files with one of `suffixes` in a folder, sorted by path, or the file given.

    Raises DataError on a path that is not there, holds none, or holds several splits.
    """
    wanted = ", ".join(sorted(suffixes))
    if source.is_file():
        if source.suffix.lower() not in suffixes:
            raise DataError(f"{source} is a {source.suffix or 'file without suffix'}: this format reads {wanted}")
        return [source]
    if not source.is_dir():
        raise DataError(f"source {source} does not exist: check the path")
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not files:
        raise DataError(f"source folder {source} holds no {wanted}: name the files, or another format")
    splits = {match.group(1) for path in files if (match := SPLITS.match(path.name))}
    if len(splits) > 1:  # to train on the test split by naming its folder would be too easy
        raise DataError(
            f"source folder {source} holds the splits {', '.join(sorted(splits))}: name the files of one of them"
        )
    return files


def read_rows(file: Path, skip: int = 0) -> Iterator[Any]:
    """The rows of a file as dictionaries, the first `skip` left out; a line that is no JSON as a BadRecordError.

    Raises DataError, with the file and the place, on a file that cannot be read further.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _parquet(file, skip)
    if suffix in TABLES:
        return islice(_table(file), skip, None)
    return islice(_json(file), skip, None)


def _json(file: Path) -> Iterator[Any]:
    with open(file, encoding="utf-8-sig") as stream:
        try:
            head = stream.read(CHUNK).lstrip()
            # Many a .json holds one object a line.
            yield from _list_values(file, stream, head[1:]) if head.startswith("[") else _lines(file, stream, head)
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not UTF-8 ({error}): convert it first") from error


def _lines(file: Path, stream: io.TextIOBase, rest: str) -> Iterator[Any]:
    while True:
        line, end, rest = rest.partition("\n")
        if not end:
            line += stream.readline(MAX_RECORD)
            if len(line) >= MAX_RECORD:
                raise DataError(f"{file} has a line of more than {MAX_RECORD:,} characters: one record a line")
            if not line:
                return
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                yield BadRecordError("record", f"is a line that is no JSON ({error})")


def _list_values(file: Path, stream: io.TextIOBase, buffer: str) -> Iterator[Any]:
    """The values of a JSON list whose bracket has been read."""
    decoder, count, at, more = json.JSONDecoder(), 0, 0, CHUNK
    space = re.compile(r"[\s,]*")
    while True:
        at = space.match(buffer, at).end()
        fault = "it ends in the middle of the list"
        if at < len(buffer):
            if buffer[at] == "]":
                return
            try:
                value, end = decoder.raw_decode(buffer, at)
                if end < len(buffer):  # or a number could go on
                    yield value
                    at, count, more = end, count + 1, CHUNK
                    continue
            except (ValueError, RecursionError) as error:  # cut off by the end of the buffer, or no JSON
                fault = str(error)
        if len(buffer) - at > MAX_RECORD:
            text, fault = "", f"a record may have {MAX_RECORD:,} characters, or {fault}"
        else:
            text = stream.read(more)
        if not text:
            raise DataError(f"{file} cannot be read after its record {count}: {fault}; it must be one JSON list")
        more *= 2  # a long value is not parsed again for every chunk of it
        buffer, at = buffer[at:] + text, 0


def _table(file: Path) -> Iterator[dict[str, Any]]:
    with open(file, encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
        try:
            for row in reader:
                row.pop(None, None)  # cells beyond the header
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{file} cannot be read after its line {reader.line_num}: {error}") from error


def _parquet(file: Path, skip: int) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # pre_buffer and use_threads would hold a whole row group: gigabytes, where it has pictures.
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as table:
            columns = [name for name in table.schema_arrow.names if name in COLUMNS]
            if not columns:
                raise DataError(f"{file} has the columns {table.schema_arrow.names}: none is one of {sorted(COLUMNS)}")
            for group in range(table.num_row_groups):
                size = table.metadata.row_group(group).num_rows
                if skip >= size:
                    skip -= size
                    continue
                for batch in table.iter_batches(PARQUET_ROWS, row_groups=[group], columns=columns, use_threads=False):
                    passed = min(skip, batch.num_rows)
                    skip -= passed
                    for index in range(passed, batch.num_rows):
                        yield {name: batch[name][index].as_py() for name in columns}
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is not a whole parquet file ({error}): download it again") from error
