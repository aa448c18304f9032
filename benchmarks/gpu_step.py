"""``make bench-gpu``: time of a training step on this machine's GPUs, bf16 beside FP8, and what `amalia plan` predicts.

A slice of the 9B (benchmarks/gpu_packs.py) trains by the real loop on packs of 16,384 tokens. Precisions take turns, a
run of its own each, for ``--rounds`` rounds; a figure is the median over rounds of the median over a run's steps, the
first ones left out. MFU counts the FLOPs that `amalia plan` counts, against the bf16 peak of conf/cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_packs import FULL, PACKS, rows_of, write_architecture
from benchmarks.measure import table
from nemo_amalia.utils.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
LAYERS = 3  # of the decoder: what an 80 GB card holds without recomputation, by the plan
WARM_UP = 4  # steps: allocator, cuBLAS, NCCL, FP8's scales
PRECISIONS = ("bf16", "fp8_current")
# The slice stands for the middle of 42 layers: none of its few stays in bf16.
EVERY_LAYER = ["precision.first_layers_bf16=0", "precision.last_layers_bf16=0"]


@dataclass(frozen=True)
class Figures:
    """Of a step: seconds, tokens of samples a second and GPU, share of the bf16 peak."""

    seconds: float
    tokens: float
    mfu: float


def words_of(arguments: argparse.Namespace, precision: str, architecture: Path, run_dir: Path) -> list[str]:
    """The run, in the words of `amalia train`."""
    tensor = arguments.tensor
    return [
        "stage=sft", "model=amalia_9b", f"cluster={arguments.cluster}", f"precision={precision}", "parallel=single",
        f"parallel.tensor={tensor}", f"parallel.sequence={str(tensor > 1).lower()}",
        "parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true",
        f"model.architecture={architecture}", "model.checkpoint=-", "data.path=-", f"run_dir={run_dir}",
        f"stage.train_steps={arguments.steps}", f"stage.global_batch_size={PACKS}",
        f"stage.seq_length={arguments.seq_length}", "stage.warmup_fraction=0.5", "logging.interval=1",
        *(EVERY_LAYER if precision.startswith("fp8") else []),
    ]  # fmt: skip


def command(gpus: int, words: list[str]) -> list[str]:
    """torchrun for one run."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}"]
    return [*start, "-m", "benchmarks.gpu_slice", *words]


def steps_of(run_dir: Path) -> list[dict]:
    """A run's metrics without its first steps. Raises ConfigError where none are left."""
    steps = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()][WARM_UP:]
    if not steps:
        raise ConfigError(f"{run_dir}/metrics.jsonl has only the {WARM_UP} steps that are left out: raise --steps")
    return steps


def measured(rounds: list[list[dict]], flops: float, gpus: int, peak: float) -> Figures:
    """Medians over rounds. flops: that a step asks for, all GPUs together; peak: FLOP/s of a GPU."""
    seconds = statistics.median(statistics.median(step["seconds"] for step in steps) for steps in rounds)
    tokens = statistics.median(step["tokens"] for steps in rounds for step in steps)
    return Figures(seconds, tokens / seconds / gpus, flops / seconds / gpus / peak)


def planned(words: list[str], gpus: int) -> tuple[Figures, float, float]:
    """(what the plan predicts for these packs, FLOPs that a step asks for, GiB that a card needs)."""
    from nemo_amalia.cluster.plan.architecture import hf_config
    from nemo_amalia.cluster.plan.flops import work_of
    from nemo_amalia.cluster.plan.memory import memory_of, split_parameters
    from nemo_amalia.cluster.plan.plan import card_gib
    from nemo_amalia.cluster.plan.shape import shape_of
    from nemo_amalia.cluster.plan.step_time import predict
    from nemo_amalia.config.compose import compose

    run = compose(words)
    shape = shape_of(hf_config(run))
    own = split_parameters(shape, run.parallel.tensor)
    stages, rows = memory_of(run, shape, gpus, own), rows_of(run, shape)
    step = predict(run, shape, gpus, stages, rows, own)
    flops = sum(part.needed for part in work_of(run, shape, rows).values()) * run.stage.global_batch_size
    gib = card_gib(max(stage.total for stage in stages))
    return Figures(step.seconds, step.tokens_per_second / gpus, step.mfu), flops, gib


def report(results: dict[str, tuple[Figures, Figures]]) -> str:
    """The table. results: (measured, planned) by precision."""
    head = ("precision", "s a step", "tokens/s/GPU", "MFU", "plan: s", "tokens/s/GPU", "MFU", "measured / plan")
    rows = []
    for name, pair in results.items():
        cells = [cell for f in pair for cell in (f"{f.seconds:.3f}", f"{f.tokens:,.0f}", f"{f.mfu:.1%}")]
        rows.append((name, *cells, f"{pair[0].seconds / pair[1].seconds:.2f}"))
    return table(head, rows)


def run_once(arguments: argparse.Namespace, gpus: int, words: list[str], run_dir: Path) -> list[dict]:
    """One run in a folder made anew; its steps. Exits where it fails."""
    shutil.rmtree(run_dir, ignore_errors=True)
    (run_dir / "logs").mkdir(parents=True)
    with open(run_dir / "logs" / "torchrun.log", "wb") as log:
        done = subprocess.run(command(gpus, words), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"bench-gpu: the run failed, its logs are in {run_dir / 'logs'}")
    return steps_of(run_dir)


def main() -> None:
    """Run, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpus", type=int, help="default: all that are visible, a divisor of the 8 packs of a step")
    parser.add_argument("--layers", type=int, default=LAYERS, help="decoder layers of the slice; 0: all there are")
    parser.add_argument("--tensor", type=int, default=1, help="tensor parallelism, with sequence parallelism")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seq-length", type=int, default=16384)
    parser.add_argument("--cluster", default="dgx_h100", help="of conf/cluster: the card that the plan reckons with")
    parser.add_argument("--architecture", type=Path, default=FULL, help="folder with a config.json")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu_step")
    parser.add_argument("--plan-only", action="store_true", help="the prediction alone; needs no GPU")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    slice_of = write_architecture(out / "architecture", arguments.layers, arguments.architecture)
    gpus = arguments.gpus or visible()
    plans = {name: planned(words_of(arguments, name, slice_of, out / name), gpus or 1) for name in arguments.precisions}
    for name, (figures, _, gib) in plans.items():
        print(f"plan, {name}: {figures.seconds:.3f} s, {figures.tokens:,.0f} tokens/s/GPU, MFU {figures.mfu:.1%}, "
              f"{gib:.0f} GiB a card", flush=True)  # fmt: skip
    if arguments.plan_only:
        return
    if not gpus:
        sys.exit("bench-gpu: no GPU is visible; --plan-only prints the prediction, --gpus N runs anyway")
    rounds: dict[str, list] = {name: [] for name in arguments.precisions}
    for number in range(arguments.rounds):
        for name in arguments.precisions:
            print(f"round {number + 1} of {arguments.rounds}: {name}", flush=True)
            run_dir = out / f"{name}_{number}"
            rounds[name].append(run_once(arguments, gpus, words_of(arguments, name, slice_of, run_dir), run_dir))
    text = summary(rounds, plans, gpus, arguments.cluster)
    (out / "table.txt").write_text(text + "\n")
    print(f"\n{text}\n\nwritten to {out / 'table.txt'}")


def summary(rounds: dict[str, list], plans: dict[str, tuple], gpus: int, cluster: str) -> str:
    """The table with the card that was measured and the one that was planned above it."""
    from nemo_amalia.config.compose import compose

    card = compose(["stage=sft", f"cluster={cluster}", "run_dir=-", "model.checkpoint=-", "data.path=-"]).cluster
    peak = card.bf16_tflops * 1e12
    results = {name: (measured(rounds[name], plans[name][1], gpus, peak), plans[name][0]) for name in rounds}
    return f"{gpus} x {device()}; planned for {card.gpu}\n{report(results)}"


def visible() -> int:
    """GPUs, as torch counts them: at most 8, and a divisor of it."""
    import torch

    found = torch.cuda.device_count()
    return max((number for number in (1, 2, 4, 8) if number <= found), default=0)


def device() -> str:
    """What the ranks ran on."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.device_count() else f"CPU process ({os.cpu_count()} cores)"


if __name__ == "__main__":
    main()
