"""A metadataset with `blend_epochized`: folders, and how often an epoch holds each of their samples.

The form is Energon's (megatron/energon/metadataset/metadataset_v2.py: MetadatasetV2, BlendEpochizedDatasetReference).
It is read here without Energon, because the launching side compares it with an index before any rank starts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from nemo_amalia.data.shards.check import check_folder
from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.files import read_yaml

KEYS = ("path", "repetitions", "split_part", "subflavors")  # of a source; subflavors change no token
MAKE = (
    "`amalia data mix stage=sft root={root} blend=epochized missing=skip out={path}` "
    "(with the stage or mix, root and missing of the first command)"
)


@dataclass(frozen=True)
class RepeatedFolder:
    """A source of an epoch. repetitions: how often the epoch holds each of its samples, 3/2 for one and a half."""

    folder: Path
    repetitions: Fraction = Fraction(1)


def read_sources(path: str | Path, called: str = "data.path") -> list[RepeatedFolder]:
    """The folders that a data.path names: of a folder itself, of a metadataset those of its training split, in order.

    A metadataset inside another multiplies, as in Energon. called: where the user wrote the path. Raises DataError, in
    one line, for what has no epoch (a weighted blend), for settings of a source that an index cannot keep, and for
    folders that are not ready.
    """
    sources = _read(check_folder(path, called), Fraction(1), ())
    folders = [source.folder for source in sources]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise DataError(f"{path} names {twice} more than once: name it once, with the sum of its repetitions")
    return sources


def _read(path: Path, repetitions: Fraction, within: tuple[Path, ...]) -> list[RepeatedFolder]:
    if path.is_dir():
        return [RepeatedFolder(path, repetitions)]
    if path in within:
        raise DataError(f"{path} names itself: a metadataset may name folders and other metadatasets")
    found = []
    for number, entry in enumerate(_entries(path)):
        where = f"source {number} of {path}"
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise DataError(f"{where} is {entry!r:.60}: expected the path of a folder and its repetitions")
        _check_keys(entry, where)
        # As Energon has it: relative to the file. normpath: faults name the folder, and Energon takes `..` out, too.
        inner = Path(os.path.normpath(path.parent / entry["path"]))
        found += _read(check_folder(inner, where), repetitions * _number(entry, where), (*within, path))
    return found


def _entries(path: Path) -> list[Any]:
    """The sources of the training split, as written."""
    content = read_yaml(path)
    splits = content.get("splits") if isinstance(content, dict) else None
    train = splits.get("train") if isinstance(splits, dict) else None
    if not isinstance(train, dict):
        raise DataError(f"{path} has no splits.train: expected Energon's metadataset, as {_make(path)} writes it")
    if "blend" in train or "datasets" in train:
        raise DataError(
            f"{path} mixes several folders by weight: that has no epoch to make packs of. Write repetitions with "
            f"{_make(path, train.get('blend'))}, or take one folder of shards"
        )
    if "path" in train:
        return [train]
    if set(train) != {"blend_epochized"} or not isinstance(train["blend_epochized"], list):
        raise DataError(
            f"splits.train of {path} has {', '.join(map(str, train)) or 'nothing'}: an index of packs is of "
            f"blend_epochized alone, as {_make(path)} writes it"
        )
    if not train["blend_epochized"]:
        raise DataError(f"blend_epochized of {path} names no source: give at least one")
    return train["blend_epochized"]


def _check_keys(entry: dict[str, Any], where: str) -> None:
    other = [str(key) for key in entry if key not in KEYS]
    if other:
        raise DataError(f"{where} has {', '.join(other)}, which an index of packs cannot keep: use {', '.join(KEYS)}")
    if entry.get("split_part") not in (None, "train"):
        raise DataError(f"{where} has split_part {entry['split_part']!r}: an index of packs is of the train split")


def _number(entry: dict[str, Any], where: str) -> Fraction:
    value = entry.get("repetitions", 1)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise DataError(f"{where} has repetitions {value!r}: expected a number above 0, as 2 or 0.5")
    return Fraction(str(value))  # as it is written: 0.29 of 100 samples are 29, and 0.29 * 100 is less


def _make(path: Path, blend: Any = None) -> str:
    """The command that writes it. blend: sources of a weighted one; its root is where the first of them lies."""
    first = blend[0] if isinstance(blend, list) and blend and isinstance(blend[0], dict) else {}
    known = isinstance(first.get("path"), str)
    root = os.path.normpath(path.parent / first["path"] / "..") if known else "DIR"
    return MAKE.format(root=root, path=path.with_name(f"{path.stem}-epochized.yaml"))


def write_blend(blend: Sequence[tuple[str | Path, float]], target: str | Path) -> Path:
    """A metadataset file that draws from several folders by weight. Weights count samples, not tokens.

    Raises DataError on a folder that is not ready and on a weight that is not positive.
    """
    return _write_metadataset("blend", "weight", [(folder, float(weight)) for folder, weight in blend], target)


def write_epochized(sources: Sequence[tuple[str | Path, float]], target: str | Path) -> Path:
    """A metadataset file of which an epoch holds every sample of a folder as often as its repetitions say, or for a
    fraction some of them once more.

    Raises DataError on a folder that is not ready and on repetitions that are not positive.
    """
    whole = [(folder, int(number) if number == int(number) else number) for folder, number in sources]
    return _write_metadataset("blend_epochized", "repetitions", whole, target)


def _write_metadataset(kind: str, name: str, sources: Sequence[tuple[str | Path, float]], target: str | Path) -> Path:
    entries = []
    for folder, number in sources:
        if number <= 0:
            raise DataError(
                f"{name} of {folder} is {number}: {name.rstrip('s')}s must be positive; leave the folder out instead"
            )
        entries.append({"path": str(check_folder(folder, "the folders of the blend")), name: number})
    if not entries:
        raise DataError("the blend names no folder: give at least one")
    content = {
        "__module__": "megatron.energon",
        "__class__": "MetadatasetV2",
        "splits": {"train": {kind: entries}},
    }
    path = Path(target)
    path.write_text(json.dumps(content, indent=1))  # JSON is YAML
    return path
