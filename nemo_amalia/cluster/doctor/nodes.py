"""`amalia doctor --cluster`: what can make a job of many nodes fail, found in seconds, before the first step.

Runs as ranks of srun (or of torchrun), one a GPU. Each finds out about its node; all see all; the ranks of a node that
is bad end first, so that the batch script excludes that one. Without a GPU the network is Gloo's, and it says so.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import sys
import time
import uuid
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from nemo_amalia.cluster.doctor.requirements import CONTAINER_ONLY, installed_version, requirements
from nemo_amalia.training.job.environment import slurm_environment
from nemo_amalia.utils.devices import has_gpu
from nemo_amalia.utils.errors import FAILED, USER_ERROR, EnvironmentProblem
from nemo_amalia.utils.text import one_line

CLOCK_SECONDS = 5.0  # of skew between nodes: file times and logs no longer tell what came first
WRITE_MB = 64
SLOW_WRITE = 0.1  # of the median node's speed
FREE_GB = 50.0  # a checkpoint of the 9B model with its optimizer is about 130 GB; less than this holds none at all
TIMEOUT = timedelta(seconds=120)  # of one collective; a node that does not answer by then is lost
ALL_REDUCE_MB = 64
LAST_WORDS = 3.0  # seconds in which the good ranks let the bad ones end first


@dataclass
class NodeFacts:
    """What one rank found. seconds: this clock against rank 0's; fault: what is wrong with this very node."""

    rank: int
    host: str
    node: str
    seconds: float = 0.0
    write_mb_s: float = 0.0
    free_gb: float = 0.0
    gpu_name: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    fault: str = ""


def run_rank(run_dir: Path | None) -> NoReturn:
    """A rank from here to its end, with ``examine_cluster``'s exit code. EnvironmentProblem outside srun, torchrun.

    An orderly exit would take down Gloo's threads while peers still answer, which now and then aborts the process (seen
    on Slurm: "terminate called without an active exception") and would have a good node excluded.
    """
    code = examine_cluster(run_dir)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def examine_cluster(run_dir: Path | None) -> int:
    """The exit code of this rank: 0, 1 where this node is bad, 2 for what no other node would mend.

    run_dir: its file system is measured. Raises EnvironmentProblem outside srun, torchrun.
    """
    slurm_environment()
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        raise EnvironmentProblem(
            "amalia doctor --cluster looks at nodes from ranks: start it with torchrun, or in a batch script as slurm/"
            "job.sh does (srun with MASTER_ADDR and MASTER_PORT)"
        )
    import torch.distributed as dist

    try:
        dist.init_process_group("gloo", timeout=TIMEOUT)
        return _examine(run_dir)
    except (RuntimeError, OSError) as error:  # a collective, or the meeting itself, that did not end in time
        print(f"error: the ranks did not all answer: {one_line(error, 300)}", flush=True)
        return FAILED


def _examine(run_dir: Path | None) -> int:
    mine = look(run_dir)
    everyone: list[NodeFacts] = [NodeFacts(**fields) for fields in _gathered(asdict(mine))]
    wrong, refusal = judge(everyone)
    if not wrong and not refusal:
        speed, fault = reduce_everywhere(all(facts.gpu_name for facts in everyone))
        wrong = {rank: text for rank, text in enumerate(_gathered(fault)) if text}
    if mine.rank == 0:
        print(summary(everyone) if wrong or refusal else f"{summary(everyone)}, {speed}", flush=True)
    return end(mine, wrong, refusal)


def look(run_dir: Path | None) -> NodeFacts:
    """This rank's facts; the first rank of a node measures the file system for all of it."""

    host = socket.gethostname()
    rank = int(os.environ["RANK"])
    facts = NodeFacts(rank, host, os.environ.get("SLURMD_NODENAME", host), seconds=_clock_against_rank_0(rank))
    names = [need.name for need in requirements() if not need.extra] + [*CONTAINER_ONLY]
    facts.versions = {name: installed_version(name) or "missing" for name in names}
    if has_gpu():
        facts.gpu_name, facts.fault = _gpu(int(os.environ.get("LOCAL_RANK", 0)))
    if run_dir is not None and int(os.environ.get("LOCAL_RANK", 0)) == 0:
        try:
            facts.write_mb_s, facts.free_gb = write_speed(run_dir)
        except OSError as error:
            facts.fault = facts.fault or f"cannot write to {run_dir} ({error.strerror})"
    return facts


def _clock_against_rank_0(rank: int) -> float:
    """Seconds that this clock is ahead of rank 0's, to a network round trip."""
    import torch.distributed as dist

    dist.barrier()
    stamps: list = [None] * dist.get_world_size()
    dist.all_gather_object(stamps, time.time())
    return stamps[rank] - stamps[0]


def _gpu(local_rank: int) -> tuple[str, str]:
    """(its name, what is wrong with it): a matrix product on it, which a card in trouble does not finish."""
    import torch

    try:
        torch.cuda.set_device(local_rank)
        one = torch.ones(1024, 1024, device="cuda")
        if float((one @ one)[0, 0]) != 1024.0:
            return torch.cuda.get_device_name(), f"GPU {local_rank} computes wrongly"
        return torch.cuda.get_device_name(), ""
    except Exception as error:  # torch raises whatever the driver says
        return "unusable", f"GPU {local_rank}: {one_line(error, 200)}"


def write_speed(folder: Path) -> tuple[float, float]:
    """(MB/s of a synced file of WRITE_MB, free GB). Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".doctor-{uuid.uuid4().hex}"
    block = os.urandom(1 << 20)
    begin = time.perf_counter()
    try:
        with open(probe, "wb") as out:
            for _ in range(WRITE_MB):
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        seconds = time.perf_counter() - begin
    finally:
        probe.unlink(missing_ok=True)
    return WRITE_MB / seconds, shutil.disk_usage(folder).free / 1e9


def judge(everyone: list[NodeFacts]) -> tuple[dict[int, str], str]:
    """({rank: what is wrong with its node}, what is wrong with all of them). Pure: the same answer on every rank."""
    wrong = {facts.rank: facts.fault for facts in everyone if facts.fault}
    middle = statistics.median(facts.seconds for facts in everyone)
    speeds = [facts.write_mb_s for facts in everyone if facts.write_mb_s]
    usual = statistics.median(speeds) if speeds else 0.0
    versions = _most_common([facts.versions for facts in everyone])
    with_gpu = sum(bool(facts.gpu_name) for facts in everyone)
    for facts in everyone:
        others = [f"{name} {facts.versions.get(name)} (elsewhere {v})" for name, v in versions.items()
                  if facts.versions.get(name) != v]  # fmt: skip
        if abs(facts.seconds - middle) > CLOCK_SECONDS:
            fault = f"clock is {facts.seconds - middle:+.1f} s off the others'"
        elif 0 < facts.write_mb_s < SLOW_WRITE * usual:
            fault = f"writes {facts.write_mb_s:.0f} MB/s, the others {usual:.0f}"
        elif others:
            fault = f"has {', '.join(others)}"
        elif not facts.gpu_name and with_gpu > len(everyone) / 2:
            fault = "sees no GPU, the others do"
        else:
            continue
        wrong.setdefault(facts.rank, fault)
    free = min((facts.free_gb for facts in everyone if facts.free_gb), default=None)
    needed = FREE_GB if with_gpu else FREE_GB / 50
    refusal = ""
    if free is not None and free < needed:
        refusal = f"run_dir has {free:.1f} GB free, expected {needed:.0f} or more: delete old checkpoints there"
    return wrong, refusal


def _most_common(found: list[dict[str, str]]) -> dict[str, str]:
    return max(found, key=found.count)


def _gathered(mine: Any) -> list[Any]:
    """Every rank's, in rank order."""
    import torch.distributed as dist

    everyone: list = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return everyone


def reduce_everywhere(gpus: bool) -> tuple[str, str]:
    """(how fast all ranks add up ALL_REDUCE_MB, what is wrong with the sum), over NCCL, or Gloo without GPUs."""
    import torch
    import torch.distributed as dist

    world, rank = dist.get_world_size(), dist.get_rank()
    group = dist.new_group(backend="nccl", timeout=TIMEOUT) if gpus else None
    device = "cuda" if gpus else "cpu"
    seconds = []
    for _ in range(5):  # the first makes the connections
        numbers = torch.full((ALL_REDUCE_MB << 18,), float(rank + 1), device=device)
        begin = time.perf_counter()
        dist.all_reduce(numbers, group=group)
        total = float(numbers[-1])  # waits for the device
        seconds.append(time.perf_counter() - begin)
    wanted = world * (world + 1) / 2
    moved = 2 * (world - 1) / world * ALL_REDUCE_MB * 1.048576e-3 / min(seconds)  # GB/s of a ring
    kind = "NCCL" if gpus else "Gloo (no GPU was checked)"
    fault = "" if total == wanted else f"an all-reduce of {world} ranks gave {total}, expected {wanted}"
    return f"all-reduce {moved:.2f} GB/s over {kind}", fault


def summary(everyone: list[NodeFacts]) -> str:
    """One line about the nodes."""
    nodes = sorted({facts.node for facts in everyone})
    skew = max(facts.seconds for facts in everyone) - min(facts.seconds for facts in everyone)
    speeds = [facts.write_mb_s for facts in everyone if facts.write_mb_s]
    cards = sorted({facts.gpu_name for facts in everyone if facts.gpu_name})
    free = min((facts.free_gb for facts in everyone if facts.free_gb), default=0.0)
    disk = f", writes {min(speeds):.0f} MB/s, {free:,.0f} GB free" if speeds else ""
    return (
        f"[doctor] {len(everyone)} ranks on {len(nodes)} nodes, {' and '.join(cards) or 'no GPU'}, clocks within "
        f"{skew:.2f} s{disk}"
    )


def end(mine: NodeFacts, wrong: dict[int, str], refusal: str) -> int:
    """Say what is wrong, once for each node, and return this rank's exit code."""
    if mine.rank == 0 and refusal:
        print(f"error: {refusal}", flush=True)
    if refusal:
        return USER_ERROR
    if mine.rank in wrong:
        print(f"error: {mine.node} (rank {mine.rank}) {wrong[mine.rank]}", flush=True)
        sys.stdout.flush()
        return FAILED
    if wrong:
        time.sleep(LAST_WORDS)
        return FAILED
    return 0
