"""`amalia reference` in a rank: a part for every shard that has none yet, then the parts joined.

The jobs of a Slurm array, and the data-parallel replicas of each, take shards in turn; nothing but files passes between
jobs, so any of them may die and be started again. Whoever finds all parts there joins them.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from megatron.core.extensions.transformer_engine import HAVE_TE
from megatron.core.pipeline_parallel.utils import is_pp_last_stage
from megatron.core.process_groups_config import ProcessGroupCollection
from transformers import AutoTokenizer

from nemo_amalia.bridge.checkpoints import assets_of, latest_iteration
from nemo_amalia.bridge.saved_config import read_provider
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.config.validation.model import check_model_layout
from nemo_amalia.data.encoding.chat import ChatFormat
from nemo_amalia.data.samples import PackedBatch
from nemo_amalia.training.job.console import Console
from nemo_amalia.training.job.environment import array_turn
from nemo_amalia.training.reference.data import shards_of
from nemo_amalia.training.reference.file import (
    SCHEMA,
    check_fingerprint,
    parts_folder,
    read_table,
    reference_command,
    reference_path,
    write_table,
)
from nemo_amalia.training.reference.fingerprint import fingerprint
from nemo_amalia.training.reference.forward import reference_rows
from nemo_amalia.training.reference.in_memory import frozen_model
from nemo_amalia.training.setup.bridge_config import set_model
from nemo_amalia.utils.devices import has_gpu
from nemo_amalia.utils.errors import DataError, UserError

#: name of a shard's part -> its packs, a few at a time
Shards = dict[str, Callable[[], Iterator[list[PackedBatch]]]]


def make_reference(run: RunConfig, console: Console, backend: str, overrides: Sequence[str] = ()) -> None:
    """The work of one rank of `amalia reference`. Raises DataError for what a user can mend."""
    if has_gpu():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    torch.distributed.init_process_group(backend)
    provider, assets = read_provider(run.model.checkpoint), assets_of(run.model.checkpoint)
    check_model_layout(run, provider, engine=HAVE_TE)
    chat = ChatFormat(AutoTokenizer.from_pretrained(assets))
    out, command, dropped = reference_path(run), reference_command(run, overrides), Counter()
    model, groups = build_model(run, provider)
    wanted: list[Any] = [None]
    if console.rank == 0:
        wanted = [fingerprint(run, chat, provider.image_geometry())]
    torch.distributed.broadcast_object_list(wanted, src=0)
    shards = shards_of(run, chat, provider.image_geometry(), assets, dropped)
    job, jobs = array_turn()
    if console.rank == 0:
        array = f", job {job + 1} of {jobs}" if jobs > 1 else ""
        console.say(f"[reference] {len(shards):,} shards of {run.data.path}{array}; parts in {parts_folder(out)}")
    write_parts(model, groups, shards, out, wanted[0], command, (job, jobs))
    if dropped.total() and not (groups.tp.rank() or groups.cp.rank() or groups.pp.rank()):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()) if count)
        console.say(f"[reference] replica {groups.dp.rank()}: {dropped.total():,} pairs left out ({reasons})")
    if console.rank == 0:
        pairs = join(out, list(shards), wanted[0], command)
        done = f"{pairs:,} pairs in {out}" if pairs is not None else "parts written; other jobs write the rest"
        console.say(f"[reference] {done}")
    torch.distributed.barrier()


def build_model(run: RunConfig, provider) -> tuple[list, Any]:
    """(this rank's part of the model, Megatron's groups) for forward passes; provider: of run.read_provider."""
    set_model(run, provider)
    provider.finalize()
    provider.initialize_model_parallel(seed=run.seed)
    groups = ProcessGroupCollection.use_mpu_process_groups()
    return frozen_model(provider, latest_iteration(run.model.checkpoint), groups), groups


def write_parts(
    model: list, groups, shards: Shards, out: Path, fingerprint: dict[str, Any], command: str, turn: tuple[int, int]
) -> None:
    """Every part of this replica's turn that is not there. turn: (job, jobs) of an array, (0, 1) without one.

    Raises DataError for parts of another reference.
    """
    folder, (job, jobs) = parts_folder(out), turn
    missing: list[Any] = [None]
    if torch.distributed.get_rank() == 0:  # one looks: a torn part may be replaced between two looks
        missing = [_missing(folder, sorted(shards)[job::jobs], fingerprint, command)]
    torch.distributed.broadcast_object_list(missing, src=0)
    writer = is_pp_last_stage(groups.pp) and not (groups.tp.rank() or groups.cp.rank())
    for name in missing[0][groups.dp.rank() :: groups.dp.size()]:
        columns: dict[str, list] = {column: [] for column in SCHEMA.names}
        for batches in shards[name]():
            rows = reference_rows(model, batches, groups)
            for column, values in (rows or {}).items():
                columns[column] += values
        if writer:
            write_table(folder / f"{name}.parquet", columns, fingerprint)
    torch.distributed.barrier()


def _missing(folder: Path, names: list[str], fingerprint: dict[str, Any], command: str) -> list[str]:
    """Parts that are not there, or torn. Raises DataError for one of another reference."""
    missing = []
    for name in names:
        part = folder / f"{name}.parquet"
        try:
            _, found = read_table(part, command)
        except UserError:
            missing.append(name)
            continue
        check_fingerprint(part, found, fingerprint, command)
    return missing


def join(out: Path, names: list[str], fingerprint: dict[str, Any], command: str) -> int | None:
    """The file of all parts, which go where this is the only job; returns its pairs.

    None while parts are missing: other jobs write them.

    Raises DataError where there is no pair at all, and for a key that stands twice: two folders of a mix whose shards
    have one name.
    """
    folder = parts_folder(out)
    parts = [folder / f"{name}.parquet" for name in sorted(names)]
    if not all(part.is_file() for part in parts):
        return None
    table = pa.concat_tables([read_table(part, command)[0] for part in parts])
    keys = table["key"].to_pylist()
    if not keys:
        raise DataError(
            f"no pair was left of {len(parts):,} shards, so {out} is not written: stage 3 takes preference pairs, "
            "records with two answers (docs/preferences.md); are these conversations? The reasons stand above"
        )
    if len(set(keys)) < len(keys):
        twice = next(key for key, seen in _counted(keys) if seen)
        raise DataError(f"the pair {twice} stands twice in {folder}: give the shards of each folder other names")
    write_table(out, {name: table[name] for name in SCHEMA.names}, fingerprint)
    if array_turn()[1] == 1:  # other jobs of an array may be reading them
        shutil.rmtree(folder)
    return len(keys)


def _counted(keys: list[str]) -> Iterator[tuple[str, bool]]:
    seen: set[str] = set()
    for key in keys:
        yield key, key in seen
        seen.add(key)
