"""Conversations to translate: a folder of shards, or of .jsonl files with images beside them, or one such file."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_amalia.utils.errors import DataError

FIELDS = ("messages", "chosen", "rejected", "id", "source", "language")


def read_conversations(*, path: str, licence: str, source: str = "") -> Iterator[dict[str, Any]]:
    """Every sample of the file `path`, or below that folder, in the order of the files' names: WebDataset tars
    (key.json, key.0.jpg, ...) and .jsonl files, whose lines are samples with "images" as paths beside the file.

    licence: of the material, where a sample does not carry its own. source: its name, where a sample has none. Raises
    ValueError on a path without either, without a licence, and on a sample that cannot be read, by name.
    """
    place = Path(path)
    found = [place] if place.is_file() else place.rglob("*")
    files = sorted(p for p in found if p.suffix in (".tar", ".jsonl") and p.is_file())
    if not files:
        fault = "has no .tar or .jsonl file" if place.is_dir() else "is no folder and no .tar or .jsonl file"
        raise DataError(f"{path} {fault}: give data.path=FOLDER, or data.path=FILE.jsonl, and data.licence=NAME")
    if not licence:
        raise DataError(f"the conversations in {path} have no licence: give data.licence=NAME, as in CC-BY-4.0")
    for file in files:
        for sample in _tar(file) if file.suffix == ".tar" else _jsonl(file):
            own = sample.pop("provenance", None) or {}
            sample["licence"] = own.get("licence") or licence
            sample["source"] = (
                sample.get("source") or source or (file.name if file == place else str(file.relative_to(place)))
            )
            yield sample


def _tar(file: Path) -> Iterator[dict[str, Any]]:
    key, parts = "", {}
    with tarfile.open(file) as tar:
        for member in tar:
            name, _, rest = member.name.partition(".")
            if name != key and parts:
                yield _sample(f"{file.name}: {key}", key, parts)
                parts = {}
            key = name
            if member.isfile():
                parts[rest] = tar.extractfile(member).read()
            tar.members.clear()  # tarfile would remember every file until the end
    if parts:
        yield _sample(f"{file.name}: {key}", key, parts)


def _sample(where: str, key: str, parts: dict[str, bytes]) -> dict[str, Any]:
    if "json" not in parts:
        raise DataError(f"{where} has no .json: expected the shards of nemo_amalia.data.shards.write.write_shards")
    content = _decoded(where, parts.pop("json"))
    try:
        numbered = sorted(parts, key=lambda name: int(name.partition(".")[0]))
    except ValueError as error:
        raise DataError(f"{where} has the files {sorted(parts)}: expected 0.jpg, 1.png, ...") from error
    return {**content, "key": key, "images": [parts[name] for name in numbered]}


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            where = f"{file.name}, line {number + 1}"
            content = _decoded(where, line)
            try:
                images = [(file.parent / name).read_bytes() for name in content.pop("images", ())]
            except (OSError, TypeError) as error:
                raise DataError(f"{where}: an image cannot be read ({error}): paths are beside the file") from error
            key = str(content.get("key") or f"{file.stem}-{number:08d}")
            yield {**content, "key": key, "images": images}


def _decoded(where: str, data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error})") from error
    if not isinstance(content, dict) or "messages" not in content:
        raise DataError(f"{where} has no messages: expected a conversation, a list of role and content")
    return {name: content[name] for name in (*FIELDS, "images", "key", "provenance") if name in content}
