"""The reference's log-probabilities as parquet beside the data: written by `amalia reference`, read by stage dpo.

Columns key, chosen_logp, rejected_logp (fp32), chosen_tokens, rejected_tokens. The schema's metadata has, as `amalia`,
the fingerprint: what the figures depend on (fingerprint.py). A file appears whole or not at all; until then
its parts lie in FILE.parts, one a shard. Imports no Megatron.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from nemo_amalia.config.schema import RunConfig
from nemo_amalia.data.loading.position import differences
from nemo_amalia.data.samples import PackedBatch
from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.files import atomic_file
from nemo_amalia.utils.text import one_line

METADATA = b"amalia"
# Folders of conf/, and keys below them, that decide what the file holds and which ranks can make it.
PASSED_ON = ("stage", "data", "precision", "parallel", "launch")
NAMED_APART = ("data.path", "stage.reference_file")  # by options of the command
# Not of forward passes that may run on fewer ranks: there is one micro-batch, and no turns to interleave.
OF_TRAINING = ("parallel.world_size", "parallel.virtual_pipeline")
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("chosen_logp", pa.float32()),
        ("rejected_logp", pa.float32()),
        ("chosen_tokens", pa.int32()),
        ("rejected_tokens", pa.int32()),
    ]
)


def reference_path(run: RunConfig) -> Path:
    """stage.reference_file, or beside the data: data/pairs -> data/pairs.reference.parquet."""
    if run.stage.reference_file is not None:
        return Path(run.stage.reference_file)
    return default_path(Path(run.data.path))


def default_path(data: Path) -> Path:
    """Where `amalia reference` writes without --out."""
    data = data.absolute()
    return data.with_name((data.stem if data.is_file() else data.name) + ".reference.parquet")


def parts_folder(path: Path) -> Path:
    """Where parts wait until all are there."""
    return path.with_name(path.name + ".parts")


def reference_command(run: RunConfig, overrides: Sequence[str] = ()) -> str:
    """Return the `amalia reference` command that makes, and completes, this run's file; it can be pasted into a shell.

    Args:
        run: the run that needs the file, or that makes it.
        overrides: the words that the run was started with.
    """
    words = ["amalia", "reference", "--checkpoint", run.model.checkpoint, "--data", run.data.path]
    if run.stage.reference_file is not None:
        words += ["--out", run.stage.reference_file]
    for word in overrides:
        key = word.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] in PASSED_ON and key not in (*NAMED_APART, *OF_TRAINING):
            words.append(word)
    for key in OF_TRAINING:
        if getattr(run.parallel, key.partition(".")[2]) is not None:
            words.append(f"{key}=null")
    return shlex.join(words)


def write_table(path: Path, columns: dict[str, list], fingerprint: dict[str, Any]) -> None:
    """The file, whole or not at all; also one that a killed process was writing is never taken for it."""
    schema = SCHEMA.with_metadata({METADATA: json.dumps(fingerprint, sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        pq.write_table(pa.table(columns, schema=schema), partial)


def read_table(path: Path, command: str) -> tuple[pa.Table, dict[str, Any]]:
    """(table, fingerprint). Raises DataError, with the command that mends it, for a file that is missing or torn."""
    parts = parts_folder(path)
    if not path.is_file():
        done = len(list(parts.glob("*.parquet"))) if parts.is_dir() else 0
        if done:
            raise DataError(f"{path} is not complete: {parts} has {done:,} parts of it; complete it with `{command}`")
        raise DataError(f"there is no reference file {path}: make it with `{command}`")
    try:
        table = pq.read_table(path, schema=None)
        fingerprint = json.loads((table.schema.metadata or {})[METADATA])
    except (pa.ArrowInvalid, OSError) as error:
        what = one_line(error)
        raise DataError(f"{path} is torn ({what:.120}): delete it and make it again with `{command}`") from error
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} was not written by `amalia reference`: make it with `{command}`") from error
    if table.column_names != SCHEMA.names:
        raise DataError(f"{path} has the columns {table.column_names}, expected {SCHEMA.names}: run `{command}`")
    return table, fingerprint


def check_fingerprint(path: Path, found: dict[str, Any], wanted: dict[str, Any], command: str) -> None:
    """Raise DataError naming what the file was made with and this run does not have."""
    differing = differences(found, wanted)
    if differing:
        raise DataError(
            f"{path} is of another reference: {'; '.join(differing)}. Delete it and run `{command}`, or name the file "
            "of this one in stage.reference_file"
        )


class FileReference:
    """wanted: the fingerprint that the file must have; None where another rank has compared it.

    Raises DataError for a file that is missing, torn or of another reference.
    """

    def __init__(self, path: Path, command: str, wanted: dict[str, Any] | None = None):
        self.path, self.command = path, command
        table, found = read_table(path, command)
        if wanted is not None:
            check_fingerprint(path, found, wanted, command)
        self._row = {key: row for row, key in enumerate(table["key"].to_pylist())}
        self._log_probs = _two(table, "chosen_logp", "rejected_logp")
        self._tokens = _two(table, "chosen_tokens", "rejected_tokens")

    def log_probs(self, batch: PackedBatch, answers, inputs: dict, groups) -> Tensor:
        """[2P] fp32, on the host. answers.tokens [2P]: how many each answer of the batch has.

        Raises DataError for a pair that the file does not have, and one that had other tokens.
        """
        missing = [key for key in batch.keys if key not in self._row]
        if missing:
            raise DataError(
                f"{self.path} has no pair {missing[0]} ({len(missing)} of this micro-batch's {len(batch.keys)}): it "
                f"was made of other data; delete it and run `{self.command}`"
            )
        tokens = answers.tokens
        rows = torch.tensor([self._row[key] for key in batch.keys], dtype=torch.int64)
        known = self._tokens[rows].view(-1).to(tokens.dtype)
        if not torch.equal(known, tokens):
            place = int((known != tokens).nonzero()[0])
            raise DataError(
                f"the {('chosen', 'rejected')[place % 2]} answer of pair {batch.keys[place // 2]} has {tokens[place]} "
                f"tokens and had {known[place]} in {self.path}: delete it and run `{self.command}`"
            )
        return self._log_probs[rows].view(-1)


def _two(table: pa.Table, *names: str) -> Tensor:
    """[pairs, 2] of two columns."""
    return torch.stack([torch.from_numpy(table[name].to_numpy().copy()) for name in names], dim=1)
