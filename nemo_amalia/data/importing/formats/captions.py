"""Pictures with captions: a folder (photo.jpg and photo.txt or photo.json), WebDataset tars of the same, or a table
(.csv, .tsv, .jsonl, .parquet) with a caption column and a path or the bytes.

A caption becomes the answer to one of the given questions, drawn by a hash of the caption and the pictures: the same
pair has the same question wherever it stands. Of several captions one is drawn alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from nemo_amalia.data.importing.formats.conversations import PLACEHOLDER
from nemo_amalia.data.importing.formats.pictures import MAX_BYTES, pictures_of, read_picture
from nemo_amalia.data.importing.formats.records import (
    BadRecordError,
    Format,
    ReadOptions,
    first_present,
    require_object,
)
from nemo_amalia.data.importing.formats.rows import TABLES, TEXT, find_files, read_rows
from nemo_amalia.utils.errors import DataError

PROMPTS = ("Descreve a imagem.", "O que se vê na imagem?", "Faz uma legenda para esta imagem.")
IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
TEXTS = {".txt", ".json", ".caption"}
PICTURE_COLUMNS = ("images", "image", "image_path", "file_name", "filename", "jpg", "path")
CAPTION_COLUMNS = ("caption", "captions", "text", "description")


def find(source: Path) -> list[Path]:
    """The tars or tables of SOURCE, or SOURCE itself where it is a folder of pictures."""
    if not source.is_dir():
        return find_files(source, {".tar", ".parquet"} | TABLES | TEXT)
    seen = {path.suffix.lower() for path in source.rglob("*")}
    for kind in ({".tar"}, {".parquet"}, TABLES, {".jsonl"}):  # img2dataset lays a .parquet and a .json beside each tar
        if seen & kind:
            return find_files(source, kind)
    return [source]


def rows(file: Path, skip: int = 0) -> Iterator[Any]:
    """The records of a tar, a table, or a folder. Names of one folder are held in memory, nothing else."""
    if file.is_dir():
        return islice(_folder(file, ""), skip, None)
    if file.suffix.lower() == ".tar":
        return _tar(file, skip)
    return read_rows(file, skip)


def _folder(top: Path, inner: str) -> Iterator[dict[str, Any]]:
    """{"id", suffix: path}: what has one stem, folder by folder, sorted."""
    entries = sorted(os.scandir(top / inner), key=lambda entry: entry.name)
    names = [entry.name for entry in entries if entry.is_file() and Path(entry.name).suffix.lower() in IMAGES | TEXTS]
    pairs = sorted(os.path.splitext(name) for name in names)
    for stem, group in groupby(pairs, key=lambda pair: pair[0]):
        yield {"id": os.path.join(inner, stem)} | {
            suffix.lower(): os.path.join(inner, stem + suffix) for _, suffix in group
        }
    for entry in entries:
        if entry.is_dir():
            yield from _folder(top, os.path.join(inner, entry.name))


def _tar(file: Path, skip: int) -> Iterator[dict[str, Any]]:
    """{"id", suffix: bytes}: WebDataset's rule, neighbours with one name up to the first dot."""
    try:
        with tarfile.open(file) as tar:
            for index, (key, group) in enumerate(groupby(_members(tar), key=lambda item: item[0])):
                row: dict[str, Any] = {"id": key}
                for _, suffix, member in group:
                    if index >= skip and suffix in IMAGES | TEXTS:
                        row[suffix] = tar.extractfile(member).read(MAX_BYTES + 1)
                if index >= skip:
                    yield row
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{file} is not a whole tar ({error}): download it again") from error


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    while (member := tar.next()) is not None:
        tar.members.clear()  # tarfile would remember every one
        if member.isfile():
            folder, name = os.path.split(member.name)
            stem, _, suffix = name.partition(".")
            yield os.path.join(folder, stem), f".{suffix.lower()}", member


def convert(row: Any, folder: Path, options: ReadOptions) -> dict[str, Any]:
    """One picture with its caption -> sample. Raises BadRecordError."""
    row = require_object(row)
    if any(name.startswith(".") for name in row):
        picture, caption = _parts(row, folder)
    else:
        picture, caption = first_present(row, PICTURE_COLUMNS), first_present(row, CAPTION_COLUMNS)
    captions = [text for text in (caption if isinstance(caption, list) else [caption]) if text]
    if not captions or not all(isinstance(text, str) and text.strip() for text in captions):
        raise BadRecordError("no_answer", f"has no caption but {str(caption)[:60]!r}")
    if any(PLACEHOLDER in text for text in captions):
        raise BadRecordError("placeholders", f"has {PLACEHOLDER} in its caption")
    images = pictures_of(picture, folder, options.max_image_pixels)
    if not images:
        raise BadRecordError("missing_image", f"has no picture, only {[name for name in row if row[name]]}")
    digest = hashlib.blake2b("\n".join(captions).encode(), digest_size=16)
    for image in images:
        digest.update(image)
    draw = int.from_bytes(digest.digest(), "little")
    prompts = options.prompts or PROMPTS
    question, answer = prompts[draw % len(prompts)], captions[(draw >> 32) % len(captions)]
    content = [{"type": "image"}] * len(images) + [{"type": "text", "text": question}]
    answers = [{"type": "text", "text": answer.strip()}]
    return {
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answers}],
        "images": images,
    }


def _parts(row: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """Picture and caption of a stem's files, given as paths or as bytes."""
    picture = next((row[suffix] for suffix in sorted(IMAGES) if suffix in row), None)
    suffix = next((suffix for suffix in (".txt", ".caption", ".json") if suffix in row), None)
    if suffix is None:
        return picture, None
    data = row[suffix] if isinstance(row[suffix], bytes) else read_picture(folder, row[suffix])
    try:
        text = data.decode("utf-8-sig")
        content = json.loads(text) if suffix == ".json" else text
    except ValueError as error:
        raise BadRecordError("record", f"has a {suffix} that cannot be read ({error})") from error
    return picture, first_present(content, CAPTION_COLUMNS) if isinstance(content, dict) else content


FORMAT = Format("pictures with captions: a folder, WebDataset tars, or a table", find, rows, convert)
