"""Writing WebDataset shards that Energon reads, and checking a folder before anyone reads it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_amalia.data.totals import Totals

PREPARE = (
    "energon prepare {folder} --non-interactive --split-ratio 1,0,0 --sample-type CrudeWebdataset "
    "--num-workers 1 --no-progress"
)
KEY = re.compile(r"[A-Za-z0-9_\-]+")  # a dot would end WebDataset's key, a slash would make a folder
EXTRA = ("id", "chosen", "rejected", "provenance")  # of a sample's json, where the sample has them
IMPORT_SETTINGS = "import.json"  # amalia data import begins a folder with it ...
IMPORT_COUNTS = "counts.json"  # ... and ends with this
MANIFEST = "manifest.jsonl"  # a line for each shard, with its sha256: what amalia data verify compares
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
    all. Deterministic: the same samples give the same tar files. Raises ValueError on an empty input, a
    folder that already holds something, a key that is repeated or has other characters than letters, digits,
    - and _.
    """
    target = Path(folder).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} is not an empty folder: choose another output folder, or remove this one")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = target.parent / f".{target.name}.partial-{os.getpid()}"
        work.mkdir()
    except OSError as error:
        raise ValueError(f"cannot write to {target.parent} ({error.strerror}): choose another folder") from error
    try:
        totals = Totals()
        report = _write_tars(samples, work, target, samples_per_shard, totals)
        write_manifest(work)
        prepare_folder(work)
        totals.write(work)
        if target.exists():
            target.rmdir()
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
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
                raise ValueError(f"key {key!r} (sample {len(keys)}) {fault}: keys name samples in errors and logs")
            if len(keys) % samples_per_shard == 0:
                if tar:
                    tar.close()
                shards.append(work / f"shard-{len(shards):06d}.tar")
                tar = tarfile.open(shards[-1], "w", format=tarfile.USTAR_FORMAT)
            keys.add(key)
            parts = sample_parts(key, sample)
            add_parts(tar, parts)
            images += len(parts) - 1
            totals.add(sample.get("messages", ()), sample["images"])
    finally:
        if tar:
            tar.close()
    if not keys:
        raise ValueError(f"there are no samples to write to {target}: look at what the source gave")
    size = sum(shard.stat().st_size for shard in shards)
    return ShardReport(target, len(keys), images, len(shards), size)


def write_manifest(folder: Path) -> None:
    """A line for each shard as it is now: name, bytes, sha256. Whole or not at all."""
    partial = folder / f".{MANIFEST}.{os.getpid()}"
    with open(partial, "w") as lines:
        for shard in sorted(folder.glob("*.tar")):
            line = {"shard": shard.name, "bytes": shard.stat().st_size, "sha256": sha256_of(shard)}
            lines.write(json.dumps(line) + "\n")
    partial.replace(folder / MANIFEST)


def sha256_of(path: Path) -> str:
    """Of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sample_parts(key: str, sample: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """(file name, bytes) of a sample's json and of its images. Raises ValueError, naming both, on bytes that are no
    image.
    """
    content = {name: sample.get(name, "") for name in ("messages", "source", "language")}
    content |= {name: sample[name] for name in EXTRA if name in sample}
    parts = [(f"{key}.json", json.dumps(content, ensure_ascii=False).encode())]
    for number, data in enumerate(sample["images"]):
        try:
            parts.append((f"{key}.{number}.{image_suffix(data)}", data))
        except ValueError as error:
            remedy = "leave the sample out (`amalia data import` drops and counts such samples)"
            raise ValueError(f"image {number} of sample {key}: {error}; {remedy}") from error
    return parts


def add_parts(tar: tarfile.TarFile, parts: Sequence[tuple[str, bytes]]) -> None:
    """Appends files to a tar. Deterministic: time 0 and no owner."""
    for name, data in parts:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    tar.members.clear()  # tarfile would remember every file until the end


def image_suffix(data: bytes) -> str:
    """File suffix of compressed image bytes, by their first bytes. Raises ValueError on an unknown format."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    for magic, suffix in MAGIC:
        if data.startswith(magic):
            return suffix
    start = f" starting with {data[:8]!r}" if data else ""
    raise ValueError(f"{len(data)} bytes{start} are no image: expected JPEG, PNG, WebP or GIF")


def prepare_folder(folder: Path) -> None:
    """What `energon prepare` does, without a second process: writes the index and .nv-meta."""
    from megatron.energon.tools.prepare import command  # 9 s of imports

    output = io.StringIO()
    arguments = PREPARE.format(folder=folder).split()[2:]
    with contextlib.redirect_stdout(output):
        command.main(arguments, standalone_mode=False)
    if not (folder / ".nv-meta" / "dataset.yaml").is_file():
        raise RuntimeError(f"energon prepare left no dataset.yaml in {folder}: {output.getvalue()[-500:]}")


def check_folder(folder: str | Path, called: str = "data.path") -> Path:
    """The absolute folder of prepared shards, or the metadataset file, given. called: where the user wrote it.

    Raises ValueError when it is missing, empty, or not prepared, with the command that mends it.
    """
    path = Path(folder).absolute()
    if not path.exists():
        raise ValueError(f"data folder {path} does not exist: check {called}")
    if path.is_file():
        if path.suffix not in (".yaml", ".yml"):
            raise ValueError(f"{path} is a file: expected a folder of shards or a metadataset .yaml")
        return path
    if (path / IMPORT_SETTINGS).is_file() and not (path / IMPORT_COUNTS).is_file():
        raise ValueError(f"data folder {path} is an import that has not ended: run the same `amalia data import` again")
    if not any(path.rglob("*.tar")):
        raise ValueError(
            f"data folder {path} holds no .tar shard: write some with nemo_amalia.data.shards.write_shards"
        )
    meta = path / ".nv-meta"
    if not (meta / "dataset.yaml").is_file() or not (meta / "split.yaml").is_file():
        raise ValueError(f"data folder {path} has shards but no index: run `{PREPARE.format(folder=path)}`")
    counts = (
        json.loads((meta / ".info.json").read_text()).get("shard_counts", {}) if (meta / ".info.json").is_file() else {}
    )
    if counts and not sum(counts.values()):
        raise ValueError(f"the shards of data folder {path} hold no samples")
    missing = [name for name in counts if not (path / name).is_file()]
    if missing:
        raise ValueError(
            f"data folder {path} lacks {len(missing)} of its {len(counts)} shards ({missing[0]} first): "
            "copy it "
            f"again, or index what is there with `{PREPARE.format(folder=path)} --force-overwrite`"
        )
    return path


def write_blend(blend: Sequence[tuple[str | Path, float]], target: str | Path) -> Path:
    """A metadataset file that draws from several folders by weight. Weights count samples, not tokens.

    Raises ValueError on a folder that is not ready and on a weight that is not positive.
    """
    return _write_metadataset("blend", "weight", [(folder, float(weight)) for folder, weight in blend], target)


def write_epochized(sources: Sequence[tuple[str | Path, float]], target: str | Path) -> Path:
    """A metadataset file of which an epoch holds every sample of a folder as often as its repetitions say, or for a
    fraction some of them once more.

    Raises ValueError on a folder that is not ready and on repetitions that are not positive.
    """
    whole = [(folder, int(number) if number == int(number) else number) for folder, number in sources]
    return _write_metadataset("blend_epochized", "repetitions", whole, target)


def _write_metadataset(kind: str, name: str, sources: Sequence[tuple[str | Path, float]], target: str | Path) -> Path:
    entries = []
    for folder, number in sources:
        if number <= 0:
            raise ValueError(
                f"{name} of {folder} is {number}: {name.rstrip('s')}s must be positive; leave the folder out instead"
            )
        entries.append({"path": str(check_folder(folder, "the folders of the blend")), name: number})
    if not entries:
        raise ValueError("the blend names no folder: give at least one")
    content = {
        "__module__": "megatron.energon",
        "__class__": "MetadatasetV2",
        "splits": {"train": {kind: entries}},
    }
    path = Path(target)
    path.write_text(json.dumps(content, indent=1))  # JSON is YAML
    return path
