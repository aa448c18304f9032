"""safetensors folders, read tensor by tensor and written shard by shard: a 9B model never has to fit in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nemo_amalia.utils.errors import CheckpointError
from nemo_amalia.utils.files import read_json

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000  # as transformers' save_pretrained


class TensorFolder:
    """The tensors of an HF folder by name; only what is asked for is read.

    Raises CheckpointError when there are no safetensors, a shard of the index is missing, or a file is cut short.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._files: dict[str, safe_open] = {}
        self._where: dict[str, str] = {}
        for name in self._file_names():
            try:
                handle = safe_open(self.folder / name, framework="pt")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{self.folder / name} cannot be read ({error}): the file is missing or cut short; copy it again"
                ) from error
            self._files[name] = handle
            self._where.update(dict.fromkeys(handle.keys(), name))

    def _file_names(self) -> list[str]:
        index = self.folder / INDEX
        if index.exists():
            return sorted(set(read_json(index)["weight_map"].values()))
        names = sorted(path.name for path in self.folder.glob("*.safetensors"))
        if not names:
            raise CheckpointError(
                f"{self.folder} has no .safetensors file: save the model again with transformers' "
                "save_pretrained (pickled .bin weights are not read)"
            )
        return names

    def keys(self) -> list[str]:
        return list(self._where)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __getitem__(self, name: str) -> Tensor:
        return self._files[self._where[name]].get_tensor(name)


def write_shards(tensors: Iterable[tuple[str, Tensor]], folder: Path, shard_bytes: int = SHARD_BYTES) -> int:
    """Write named tensors as transformers does, holding one shard at a time. Returns the bytes written.

    One shard is called ``model.safetensors``; several are numbered and listed in an index.
    """
    folder, written, total = Path(folder), [], 0
    for shard in _shards(tensors, shard_bytes):
        path = folder / f"shard-{len(written):05d}.safetensors"
        save_file(shard, path, metadata={"format": "pt"})
        written.append((path, list(shard)))
        total += sum(_bytes(tensor) for tensor in shard.values())
        shard.clear()
    if not written:
        raise CheckpointError(f"there is no tensor to write to {folder}")
    if len(written) == 1:
        written[0][0].rename(folder / "model.safetensors")
        return total
    weight_map = {}
    for number, (path, names) in enumerate(written, start=1):
        name = f"model-{number:05d}-of-{len(written):05d}.safetensors"
        path.rename(folder / name)
        weight_map.update(dict.fromkeys(names, name))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return total


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _shards(tensors: Iterable[tuple[str, Tensor]], shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + _bytes(tensor) > shard_bytes:
            yield shard
            shard, size = {}, 0
        # Split from a fused tensor it may be a view: safetensors wants its own storage.
        shard[name] = tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        size += _bytes(tensor)
    if shard:
        yield shard
