"""The file that `amalia data pack` writes: which samples make each pack, where they lie, and what all of it sums to.

A zip of head.json and numpy arrays, without pickle: about 10 bytes a sample. Reading the head needs neither torch nor
transformers. A head is

    settings   what the lengths depend on: tokenizer, chat template, geometry (hashes or values), seq_length, ...
    data       identity of the folder, and the names of its shards; of a mix those of all its folders, and "sources":
               name, identity, repetitions, number of shards, samples_in, dropped by reason, samples of an epoch
    totals     samples_in, dropped by reason, samples, packs, tokens, loss_tokens, image_tokens, fill
    digest     of the arrays, the settings and the data: two indexes with one digest give the same packs
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nemo_amalia.data.settings import StreamSettings
from nemo_amalia.data.shards.metadataset import RepeatedFolder, read_sources
from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.files import atomic_file, quoted

if TYPE_CHECKING:  # they load torch, and a launcher reads an index
    from nemo_amalia.data.encoding.chat import ChatFormat
    from nemo_amalia.data.images.geometry import ImageGeometry

FORMAT = "amalia pack index 2"
HEAD = "head.json"
ARRAYS = ("counts", "shards", "offsets", "sizes", "lengths")


@dataclass(frozen=True, slots=True)
class PackIndex:
    """head: as above. starts: [packs + 1] int64, pack p holds the samples starts[p] to starts[p + 1]. Of each sample,
    in the order of the packs: shards (position in head["data"]["shards"]), offsets and sizes (blocks of 512 bytes of
    the tar), lengths (tokens, without padding; of a pair those it takes of a pack); unsigned, as narrow as they can be.
    """

    head: dict[str, Any]
    starts: np.ndarray
    shards: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1


def settings_of(chat: ChatFormat, geometry: ImageGeometry, settings: StreamSettings) -> dict[str, Any]:
    """Return what the lengths and the packs depend on, as plain values."""
    return tokens_settings(chat, geometry) | stage_settings(settings)


def tokens_settings(chat: ChatFormat, geometry: ImageGeometry) -> dict[str, Any]:
    """Return what the tokens of a sample depend on besides the stage."""
    tokenizer = chat.tokenizer
    words = tokenizer.backend_tokenizer.to_str() + json.dumps([tokenizer.bos_token, chat.image_token, chat.end_of_turn])
    return {
        "tokenizer": _hash(words.encode()),
        "chat_template": _hash(str(tokenizer.chat_template).encode()),
        "tile": geometry.tile,
        "patch": geometry.patch,
        "pinpoints": [list(canvas) for canvas in geometry.pinpoints],
    }


def stage_settings(settings: StreamSettings) -> dict[str, Any]:
    """Return the part that a run's configuration decides; a launcher can check it without a tokenizer.

    max_image_pixels changes no length, but which samples there are: an index made with a higher one holds samples that
    training refuses, which would end the run in the middle.
    """
    return {
        "seq_length": settings.seq_length,
        "segment_multiple": settings.segment_multiple,
        "tiling": settings.tiling,
        "max_image_pixels": settings.data.max_image_pixels,
        "sample_kind": settings.sample_kind,
    }


def data_identity(path: str | Path) -> str:
    """Of the shards that an index was made of: of a folder the random id of Energon's index, or names and sizes of the
    shards; of a mix that of all its folders and their repetitions, wherever they lie.

    Raises DataError for a mix by weight, and for folders that are not ready.
    """
    if Path(path).is_dir():
        return _folder_identity(Path(path))
    return identity_of(path, read_sources(path))["identity"]


def identity_of(path: str | Path, sources: list[RepeatedFolder]) -> dict[str, Any]:
    """{"identity"} as data_identity's, and for a mix "sources": its folders' name, identity, repetitions."""
    if Path(path).is_dir():
        return {"identity": _folder_identity(Path(path))}
    found = [
        {"name": each.folder.name, "identity": _folder_identity(each.folder), "repetitions": str(each.repetitions)}
        for each in sources
    ]
    return {
        "identity": _hash(json.dumps([[each["identity"], each["repetitions"]] for each in found]).encode()),
        "sources": found,
    }


def _folder_identity(folder: Path) -> str:
    uuid = folder / ".nv-meta" / "index.uuid"
    if uuid.is_file():
        return uuid.read_text().strip()
    return _hash("".join(f"{path.name} {path.stat().st_size}\n" for path in sorted(folder.rglob("*.tar"))).encode())


def shard_places(head: Mapping[str, Any], path: str | Path) -> list[tuple[Path, str]]:
    """(folder, name) of each shard of head["data"]["shards"], where `path`, a folder or a mix, has them."""
    folders = [source.folder for source in read_sources(path)]
    numbers = [source["shards"] for source in head["data"].get("sources", [])] or [len(head["data"]["shards"])]
    of_shards = [folder for folder, number in zip(folders, numbers, strict=True) for _ in range(number)]
    return list(zip(of_shards, head["data"]["shards"], strict=True))


def write_index(path: str | Path, head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Writes the index whole or not at all, and gives its head back, digest included. arrays: those of ARRAYS.

    The same samples and settings give the same file, byte for byte. Raises DataError where it cannot be written.
    """
    narrow = {name: _narrow(arrays[name]) for name in ARRAYS}
    digest = hashlib.sha256(json.dumps([head["settings"], head["data"]["identity"]], sort_keys=True).encode())
    for values in narrow.values():
        digest.update(values.astype("<i8").tobytes())
    head = {"format": FORMAT, **head, "digest": digest.hexdigest()[:16]}
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as file:
            # writestr with a ZipInfo: its time is that of 1980, not of now.
            file.writestr(_entry(HEAD), json.dumps(head, indent=1, ensure_ascii=False))
            for name, values in narrow.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, values, allow_pickle=False)
                file.writestr(_entry(f"{name}.npy"), buffer.getvalue())
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}): choose another file") from error
    return head


def read_head(path: str | Path, command: str | None = None) -> dict[str, Any]:
    """Read what an index says of itself.

    Args:
        path: the index.
        command: what makes it anew, where the caller knows more than its path.

    Raises:
        DataError: the file is missing, corrupt, or no such index, or its format has another number.
    """
    command = command or f"amalia data pack SOURCE --assets HF --out {quoted(path)}"
    try:
        with zipfile.ZipFile(path) as file:
            head = json.loads(file.read(HEAD))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DataError(f"{quoted(path)} is not a pack index ({error}): make one with `{command}`") from error
    if head.get("format") != FORMAT:
        raise DataError(
            f"{quoted(path)} has format {head.get('format')!r}, expected {FORMAT!r}: remove it and make a new one with "
            f"`{command}`"
        )
    return head


def read_index(path: str | Path, command: str | None = None) -> PackIndex:
    """The whole index, in memory: 15 bytes a sample. Takes and raises what read_head does."""
    head = read_head(path, command)
    try:
        with zipfile.ZipFile(path) as file:
            arrays = {
                name: np.lib.format.read_array(io.BytesIO(file.read(f"{name}.npy")), allow_pickle=False)
                for name in ARRAYS
            }
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DataError(f"{quoted(path)} is corrupt or truncated ({error}): remove it and make it again") from error
    starts = np.concatenate([[0], np.cumsum(arrays.pop("counts"), dtype=np.int64)])
    return PackIndex(head, starts, **arrays)


def refuse_other(path: str | Path, head: Mapping[str, Any], settings: Mapping[str, Any], folder: str | Path) -> None:
    """Raises DataError, in one line that names every difference, for an index of other shards or other settings."""
    made = head["settings"]
    differing = [
        f"{name} was {_short(made.get(name))} and is {_short(value)}"
        for name, value in settings.items()
        if made.get(name) != value
    ]
    differing += _other_data(head["data"], folder)
    if differing:
        raise DataError(
            f"the packs of {path} are not this run's: {'; '.join(differing)}. Make them again with `amalia data pack "
            f"{folder}`, or train with what they were made of"
        )


def _other_data(made: Mapping[str, Any], path: str | Path) -> list[str]:
    """What differs between the data of an index and that of `path`: a folder, or source for source of a mix."""
    if "sources" not in made and Path(path).is_dir():
        identity = _folder_identity(Path(path))
        changed = made["identity"] != identity
        return [f"the shards were {made['identity']} and those of {path} are {identity}"] if changed else []
    sources = read_sources(path)
    before = made.get("sources")
    if before is None or Path(path).is_dir() or len(before) != len(sources):
        was = "one folder" if before is None else f"a mix of {len(before)} sources"
        now = "one folder" if Path(path).is_dir() else f"a mix of {len(sources)} sources"
        return [f"the data was {was}, {made['folder']}, and {path} is {now}"]
    found = []
    for old, new, source in zip(before, identity_of(path, sources)["sources"], sources, strict=True):
        if old["identity"] != new["identity"]:
            found.append(f"the shards of {source.folder} were {old['identity']} and are {new['identity']}")
        if old["repetitions"] != new["repetitions"]:
            found.append(f"repetitions of {source.folder} was {old['repetitions']} and is {new['repetitions']}")
    return found


def epoch_order(packs: int, seed: int, epoch: int) -> np.ndarray:
    """[packs] uint32: every pack once, in an order that depends on (seed, epoch) alone, in any version of numpy.

    The packs sorted by a hash of their number (SplitMix64's finaliser; Steele, Lea and Flood, OOPSLA 2014).
    """
    start = int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:8], "little")
    mixed = np.arange(1, packs + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(mixed ^ (mixed >> np.uint64(31)), kind="stable").astype(np.uint32)


def _narrow(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return values.astype(np.min_scalar_type(int(values.max(initial=0))).newbyteorder("<"))


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _short(value: Any) -> str:
    """A list of 35 canvases would be most of the line."""
    return (
        f"{len(value)} canvases (sha {_hash(json.dumps(value).encode())})" if isinstance(value, list) else repr(value)
    )
