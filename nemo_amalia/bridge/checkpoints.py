"""What lies in a checkpoint folder: the latest iteration, and the ``hf`` assets; torn ones are refused by name.

A checkpoint folder has ``latest_checkpointed_iteration.txt``, ``iter_N/`` and, written by `amalia import` and by
training, ``hf/`` with config, tokenizer, chat template and processor. Nothing here imports megatron.
"""

from __future__ import annotations

import pickle
from pathlib import Path

from nemo_amalia.utils.errors import CheckpointError

ASSETS = "hf"
TRACKER = "latest_checkpointed_iteration.txt"  # written last: a save without it never ended
_ALWAYS = ("run_config.yaml", ".metadata", "metadata.json")


def latest_iteration(checkpoint: str | Path) -> Path:
    """The newest ``iter_N`` folder of a checkpoint, or the folder itself when it is one.

    Raises CheckpointError when there is none, or when it is torn.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise CheckpointError(f"there is no checkpoint folder {folder}: check the path")
    if not (folder / "run_config.yaml").is_file() and not folder.name.startswith("iter_"):
        tracker = folder / TRACKER
        if not tracker.is_file():
            raise CheckpointError(
                f"{folder} is no checkpoint (no {TRACKER}): name the folder that `amalia import` or a run made"
            )
        step = tracker.read_text().strip()
        if not step:
            raise CheckpointError(f"{tracker} is empty: write the number of an iteration that is there into it")
        folder = folder / (f"iter_{int(step):07d}" if step.isdigit() else step)
        if not folder.is_dir():
            raise CheckpointError(
                f"{tracker} names {folder.name}, which is not beside it: it was moved or deleted; "
                "write the number of an iteration that is there into it"
            )
    check_whole(folder)
    return folder


def check_whole(iteration: str | Path) -> None:
    """Raise CheckpointError where an ``iter_N`` folder lacks files, or data is shorter than its index says."""
    iteration = Path(iteration)
    missing = [name for name in _ALWAYS if not (iteration / name).is_file()]
    if missing:
        raise _torn(iteration, f"no {', '.join(missing)}")
    for name, size in _data_files(iteration).items():
        path = iteration / name
        if not path.is_file():
            raise _torn(iteration, f"no {name}")
        if path.stat().st_size < size:
            raise _torn(iteration, f"{name} has {path.stat().st_size:,} bytes of at least {size:,}")


def stored_parts(iteration: Path) -> list[tuple[str, int, int]]:
    """(file, offset, length) in bytes of everything that the index of a torch_dist checkpoint has."""
    try:
        with open(iteration / ".metadata", "rb") as index:
            parts = _IndexReader(index).load().storage_data.values()
            return [(part.relative_path, part.offset, part.length) for part in parts]
    except Exception as error:  # a pickle that ends early raises whatever it was about to read
        raise _torn(iteration, f".metadata cannot be read, {type(error).__name__}") from error


def _data_files(iteration: Path) -> dict[str, int]:
    """Data files of a torch_dist checkpoint and the bytes that its index expects in each at least."""
    sizes: dict[str, int] = {}
    for name, offset, length in stored_parts(iteration):
        sizes[name] = max(sizes.get(name, 0), offset + length)
    return sizes


class _Record:
    """Any object of torch's index, as its attributes."""

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __init__(self, *_, **__): ...

    def __setstate__(self, state) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class _IndexReader(pickle.Unpickler):
    """Reads .metadata as plain records: torch, 11 s of imports, is not needed for it, and no code in it is run."""

    def find_class(self, module: str, name: str):
        """Containers as they are, everything else as a record."""
        known = {("collections", "OrderedDict"): dict, ("builtins", "set"): set}
        return known.get((module, name), _Record)


def _torn(iteration: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {iteration} is torn ({what}): delete it and name the one before in {TRACKER}, or import again"
    )


def assets_of(checkpoint: str | Path) -> Path:
    """The ``hf`` folder of a checkpoint, beside or inside it. Raises CheckpointError where there is none."""
    folder = Path(checkpoint)
    for candidate in (folder / ASSETS, folder.parent / ASSETS):
        if (candidate / "config.json").is_file():
            return candidate
    raise CheckpointError(
        f"{folder} has no {ASSETS} folder with config, tokenizer and processor: copy the one that `amalia import` "
        "wrote beside it, or import the model again"
    )
