"""Writing WebDataset shards that Energon reads, and checking a folder before anyone reads it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_amalia.config.schema import DataConfig
from nemo_amalia.data.shards.check import prepare_arguments
from nemo_amalia.data.shards.manifest import write_manifest
from nemo_amalia.data.shards.totals import Totals
from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.files import atomic_folder

KEY = re.compile(r"[A-Za-z0-9_\-]+")  # a dot would end WebDataset's key, a slash would make a folder
EXTRA = ("id", "chosen", "rejected", "provenance")  # of a sample's json, where the sample has them
MAGIC = (
    (b"\xff\xd8", "jpg"),
    (b"\x89PNG", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*", "tif"),
    (b"MM\0*", "tif"),
)


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What write_shards wrote. num_bytes counts the tar files."""

    folder: Path
    num_samples: int
    num_images: int
    num_shards: int
    num_bytes: int


def write_shards(
    samples: Iterable[Mapping[str, Any]], folder: str | Path, samples_per_shard: int = 1000
) -> ShardReport:
    """Writes {"key", "messages", "images": [bytes], "source", "language"} as indexed shards with their totals
    and manifest. "id", "chosen", "rejected" and "provenance" go into the json, too, where a sample has them.

    Atomic: all is written to a neighbour folder and renamed at the end, so a folder is there whole or not at
    all. Deterministic: the same samples give the same tar files. Raises DataError on an empty input, a
    folder that already holds something, a key that is repeated or has other characters than letters, digits,
    - and _.
    """
    target, totals = Path(folder).absolute(), Totals()
    with atomic_folder(target) as work:
        report = _write_tars(samples, work, target, samples_per_shard, totals)
        write_manifest(work)
        prepare_folder(work)
        totals.write(work)
    return report


def _write_tars(
    samples: Iterable[Mapping[str, Any]], work: Path, target: Path, samples_per_shard: int, totals: Totals
) -> ShardReport:
    keys: set[str] = set()
    tar, shards, images = None, [], 0
    try:
        for sample in samples:
            key = sample["key"]
            if not KEY.fullmatch(key) or key in keys:
                fault = "is repeated" if key in keys else "may hold only letters, digits, - and _"
                raise DataError(f"key {key!r} (sample {len(keys)}) {fault}: keys name samples in errors and logs")
            if len(keys) % samples_per_shard == 0:
                if tar:
                    tar.close()
                shards.append(work / f"shard-{len(shards):06d}.tar")
                tar = tarfile.open(shards[-1], "w", format=tarfile.USTAR_FORMAT)
            keys.add(key)
            parts = sample_parts(key, sample)
            add_parts(tar, parts)
            images += len(parts) - 1
            totals.add(sample.get("messages", ()), sample["images"], DataConfig.max_image_pixels)
    finally:
        if tar:
            tar.close()
    if not keys:
        raise DataError(f"there are no samples to write to {target}: look at what the source gave")
    size = sum(shard.stat().st_size for shard in shards)
    return ShardReport(target, len(keys), images, len(shards), size)


def sample_parts(key: str, sample: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """(file name, bytes) of a sample's json and of its images. Raises DataError, naming both, on bytes that are no
    image.
    """
    content = {name: sample.get(name, "") for name in ("messages", "source", "language")}
    content |= {name: sample[name] for name in EXTRA if name in sample}
    parts = [(f"{key}.json", json.dumps(content, ensure_ascii=False).encode())]
    for number, data in enumerate(sample["images"]):
        try:
            parts.append((f"{key}.{number}.{image_suffix(data)}", data))
        except DataError as error:
            remedy = "leave the sample out (`amalia data import` drops and counts such samples)"
            raise DataError(f"image {number} of sample {key}: {error}; {remedy}") from error
    return parts


def add_parts(tar: tarfile.TarFile, parts: Sequence[tuple[str, bytes]]) -> None:
    """Appends files to a tar. Deterministic: time 0 and no owner."""
    for name, data in parts:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    tar.members.clear()  # tarfile would remember every file until the end


def image_suffix(data: bytes) -> str:
    """File suffix of compressed image bytes, by their first bytes. Raises DataError on an unknown format."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    for magic, suffix in MAGIC:
        if data.startswith(magic):
            return suffix
    start = f" starting with {data[:8]!r}" if data else ""
    raise DataError(f"{len(data)} bytes{start} are no image: expected JPEG, PNG, WebP or GIF")


def prepare_folder(folder: Path) -> None:
    """What `energon prepare` does, without a second process: writes the index and .nv-meta."""
    from megatron.energon.tools.prepare import command  # 9 s of imports

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        command.main(prepare_arguments(folder), standalone_mode=False)
    if not (folder / ".nv-meta" / "dataset.yaml").is_file():
        raise RuntimeError(f"energon prepare left no dataset.yaml in {folder}: {output.getvalue()[-500:]}")
