"""What the reference's log-probabilities depend on, as values that say what differs where they do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from nemo_amalia.bridge.checkpoints import latest_iteration, stored_parts
from nemo_amalia.config.schema import PREFERENCE_STAGE, RunConfig
from nemo_amalia.data.loading.position import resolve
from nemo_amalia.data.packing.index import settings_of
from nemo_amalia.data.settings import StreamSettings
from nemo_amalia.training.reference.file import check_fingerprint, read_table, reference_command, reference_path

# Of an index of packs' settings; how pairs are packed changes no log-probability.
_OF_TOKENS = ("tokenizer", "chat_template", "tile", "patch", "pinpoints", "tiling", "max_image_pixels")
_BYTES = 4096  # read of every stored tensor


def fingerprint(run: RunConfig, chat: Any, geometry: Any) -> dict[str, Any]:
    """Checkpoint, tokenizer, template, image geometry, precision and data of a run; no weights are read whole."""
    tokens = settings_of(chat, geometry, StreamSettings.of(run))
    return _of_files(run) | {name: tokens[name] for name in _OF_TOKENS}


def check_reference(run: RunConfig, overrides: Sequence[str] = ()) -> None:
    """Refuse, before any rank starts, a file that is missing, corrupt, or of another checkpoint or data.

    Tokenizer and geometry are compared by the rank that has them. overrides: the words that the run was started with.

    Raises:
        DataError: naming the command that makes the file.
    """
    if run.stage.name != PREFERENCE_STAGE or run.stage.reference == "in_memory":
        return
    path, command = reference_path(run), reference_command(run, overrides)
    _, found = read_table(path, command)
    wanted = _of_files(run)
    check_fingerprint(path, {name: found.get(name) for name in wanted}, wanted, command)


def _of_files(run: RunConfig) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint_fingerprint(run.model.checkpoint),
        "precision": run.precision.recipe,
        "data": _hash(json.dumps(resolve(run.data.path)[1]).encode()),
    }


def checkpoint_fingerprint(checkpoint: str | Path) -> str:
    """Of the index and of 4 KB in the middle of every stored tensor: training a module changes each of its tensors."""
    iteration = latest_iteration(checkpoint)
    digest = hashlib.sha256()
    parts = sorted(stored_parts(iteration))
    for name, of_file in groupby(parts, key=lambda part: part[0]):
        with open(iteration / name, "rb") as data:
            for _, offset, length in of_file:
                data.seek(offset + max(0, length - _BYTES) // 2)
                digest.update(f"{name} {offset} {length} ".encode() + data.read(min(length, _BYTES)))
    return digest.hexdigest()[:16]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
