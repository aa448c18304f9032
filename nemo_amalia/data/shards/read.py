"""The records of a folder of shards by byte offset: what an index of packs is made from and read with.

Energon's own files say where a sample lies (`shard.tar.idx`) and which shards are for training (`.nv-meta/split.yaml`),
and its own patterns say which tar members are parts of it, so that both ways of reading see the same samples.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from megatron.energon.epathlib import EPath
from megatron.energon.flavors.webdataset.config import skip_meta_re, split_name_re
from megatron.energon.flavors.webdataset.metadata import WebdatasetMeta

from nemo_amalia.utils.errors import DataError

BLOCK = 512  # bytes; every member of a tar starts at a multiple


def training_shards(folder: str | Path) -> tuple[list[str], set[str]]:
    """Names of the shards that Energon trains on, in its order, and the samples that split.yaml leaves out.

    Raises DataError when the training split names no shard.
    """
    try:
        meta = WebdatasetMeta.from_config(EPath(str(folder)), split_part="train")
    except Exception as error:  # EmptyDatasetError, assertions and YAML's own
        raise DataError(f"the training split of {folder} cannot be used ({error}): see .nv-meta/split.yaml") from error
    return [shard.name for shard in meta.shards], set(meta.sample_excludes)


def sample_offsets(shard: Path) -> np.ndarray:
    """[samples + 1] int64: sample k is the bytes from offset k to offset k + 1 of the tar.

    Raises DataError when Energon's index of the shard is missing or longer than the shard.
    """
    index = Path(f"{shard}.idx")
    if not index.is_file():
        raise DataError(f"{shard} has no {index.name}: index its folder again with `energon prepare`")
    offsets = np.fromfile(index, dtype="<u8").astype(np.int64)
    size = shard.stat().st_size
    if len(offsets) and (offsets[-1] > size or (np.diff(offsets) <= 0).any() or (offsets[:-1] % BLOCK).any()):
        raise DataError(f"{index} does not fit {shard.name} of {size:,} bytes: index its folder again")
    return offsets


def read_record(descriptor: int, shard: str, offset: int, size: int) -> dict[str, Any]:
    """The parts of one sample by suffix, as bytes, and `__key__` = "shard.tar/key", as the cooker takes it.

    Raises DataError where no sample lies there.
    """
    data = os.pread(descriptor, size, offset)
    record: dict[str, Any] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                parts = split_name_re.match(member.name)
                if not member.isreg() or parts is None or skip_meta_re.match(member.name):
                    continue
                record.setdefault("__key__", f"{shard}/{parts.group(1).rpartition('/')[2]}")
                record[parts.group(2)] = tar.extractfile(member).read()
    except tarfile.TarError:
        record = {}
    if len(data) < size or not record:
        raise DataError(f"{shard} holds no sample at byte {offset:,}: the shard is not the one that was indexed")
    return record
