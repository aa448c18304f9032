"""`amalia dryrun`: one training step of the ranks of a big job, on this machine, without a GPU and without data."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_amalia.cluster.dryrun.rank_step import RankReport, run_rank
from nemo_amalia.cluster.plan.memory import StageMemory, memory_of
from nemo_amalia.cluster.plan.shape import ModelShape
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.model.provider import AmaliaVLModelProvider
from nemo_amalia.utils.files import atomic_file

GIB = 1 << 30


@dataclass(frozen=True)
class FailedRank:
    """rank, and what it raised: the error in one line, and its stack."""

    rank: int
    error: str
    stack: str


def run_ranks(
    run: RunConfig, provider: AmaliaVLModelProvider, ranks: Sequence[int], world_size: int, log: Path,
    jobs: int | None = None,
) -> list[RankReport | FailedRank]:  # fmt: skip
    """Each rank in a process of its own, forked from this one, ``jobs`` at a time (None: one a core).

    What the libraries print goes to ``log``.
    """
    jobs = jobs or os.cpu_count() or 1
    waiting, running, found = list(ranks), {}, {}
    with tempfile.TemporaryDirectory(prefix="dryrun_") as folder:
        while waiting or running:
            while waiting and len(running) < jobs:
                rank = waiting.pop(0)
                place = Path(folder) / str(rank)
                running[_fork(run, provider, rank, world_size, place, log)] = rank, place
            pid, status = os.wait()
            if pid not in running:
                continue
            rank, place = running.pop(pid)
            found[rank] = (
                pickle.loads(place.read_bytes())
                if place.exists()
                else FailedRank(rank, f"the process of rank {rank} ended with status {status}: see {log}", "")
            )
    return [found[rank] for rank in ranks]


def _fork(run: RunConfig, provider, rank: int, world_size: int, place: Path, log: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        try:
            result = run_rank(run, provider, rank, world_size)
        except BaseException as error:
            line = " ".join(f"{type(error).__name__}: {error}".split())
            result = FailedRank(rank, line, traceback.format_exc())
        with atomic_file(place) as partial:
            partial.write_bytes(pickle.dumps(result))
    finally:
        sys.stdout.flush()
        os._exit(0)


def failures(results: Sequence[RankReport | FailedRank]) -> str:
    """The errors of the ranks that failed, equal ones once; the stack of the first. Empty where none did."""
    failed = [result for result in results if isinstance(result, FailedRank)]
    if not failed:
        return ""
    by_error: dict[str, list[int]] = {}
    for result in failed:
        by_error.setdefault(result.error, []).append(result.rank)
    lines = [f"error: rank {', '.join(map(str, ranks))}: {error}" for error, ranks in by_error.items()]
    return "\n".join([*lines, "", failed[0].stack.rstrip()])


def table(run: RunConfig, shape: ModelShape, world_size: int, results: Sequence[RankReport | FailedRank]) -> str:
    """A line a rank, in GiB, beside what `amalia plan` reckons for its stage."""
    planned = {memory.stage.index: memory for memory in memory_of(run, shape, world_size)}
    head = (
        f"{'rank':>5} {'pp/tp/cp/dp':>13} {'parameters':>14} {'weights':>8} {'grads':>7} {'optim':>7} {'activ.':>7} "
        f"{'total':>7} {'plan':>7} {'card':>6} {'micro':>6} {'tiles':>6} {'s':>5}"
    )
    lines = [head]
    for result in results:
        if isinstance(result, FailedRank):
            lines.append(f"{result.rank:>5} {'-':>13} failed: {result.error[:90]}")
            continue
        lines.append(_line(result, planned[result.coordinates["pp"]], run.cluster.gpu_memory_gb))
    lines.append("GiB of one rank. activ.: at the peak of forward and backward; plan: what `amalia plan` has; card:")
    lines.append("cluster.gpu_memory_gb; micro: micro-batches that were run, as many as fill the pipeline")
    return "\n".join(lines)


def _line(report: RankReport, planned: StageMemory, card: float) -> str:
    c = report.coordinates
    has = f"{card:.1f}" if card else "-"
    parts = (report.weights, report.gradients, report.optimizer)
    return (
        f"{report.rank:>5} {c['pp']:>4}/{c['tp']}/{c['cp']}/{c['dp']:<5} {report.parameters:>14,} "
        f"{parts[0] / GIB:>8.2f} {parts[1] / GIB:>7.2f} {parts[2] / GIB:>7.2f} {report.activations / GIB:>7.2f} "
        f"{report.total / GIB:>7.2f} {planned.total / GIB:>7.2f} {has:>6} "
        f"{report.in_flight:>6} {report.tiles:>6} {report.seconds:>5.0f}"
    )
