"""``make bench-fp8``: the demo's stage 2 with and without FP8, from the same checkpoint, on the same packs.

The decoder's linear layers compute in emulated FP8 (nemo_amalia/model/fp8_emulation.py), but those of the first and the
last layer, as in conf/precision; with ``--every-layer`` those too, the harder case. ``--compute fp32`` compares fp32
with FP8 on top of fp32, so that FP8 is the only difference and a step takes seconds; ``--compute bf16`` has bf16 below
both, as on a GPU, and is several times slower on a CPU. It needs stage 1 and the data of a demo run (``make demo``).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAPTOP = ["parallel=tp2", "launch.ranks=2", "data=demo", "checkpoint.save_interval=100000", "logging.interval=20"]
PRECISIONS = {
    "fp32": {
        "none": ["precision=fp32"],
        "tensorwise": ["precision=fp32", "precision.fp8_scaling=tensorwise", "precision.fp8_format=hybrid"],
        "blockwise": ["precision=fp32", "precision.fp8_scaling=blockwise", "precision.fp8_format=e4m3"],
    },
    "bf16": {
        "none": ["precision=bf16"],
        "tensorwise": ["precision=fp8_current"],
        "blockwise": ["precision=fp8_blockwise"],
    },
}
LAST = 20  # steps that a final loss is the mean of


def train(demo: Path, folder: Path, steps: int, precision: list[str]) -> list[dict]:
    """One run of ``steps`` steps in ``folder``, made anew; the metrics of its steps."""
    shutil.rmtree(folder, ignore_errors=True)
    words = ["stage=sft_demo", f"stage.train_steps={steps}", f"model.checkpoint={demo / 'alignment' / 'checkpoints'}"]
    words += [f"data.path={demo / 'data' / 'sft'}", f"run_dir={folder}", *LAPTOP, *precision]
    command = [sys.executable, "-m", "nemo_amalia.cli", "train", *words]
    if subprocess.run(command, cwd=ROOT, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}).returncode:
        sys.exit(f"bench-fp8: the run of {' '.join(precision)} failed; its logs are in {folder / 'logs'}")
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def final_loss(metrics: list[dict]) -> float:
    """Mean of the last steps' losses."""
    losses = [step["loss"] for step in metrics[-LAST:]]
    return sum(losses) / len(losses)


def table(results: dict[str, list[dict]], compute: str) -> str:
    """Markdown: final losses, each against that without FP8 with the standard error that its few steps leave, and the
    mean loss of all steps against that without FP8.
    """
    base = results["none"]
    lines = ["| decoder's matrix products | first loss | final loss | ratio | of all steps |", "|---|---|---|---|---|"]
    for name, metrics in results.items():
        what = compute if name == "none" else f"FP8 {name} on {compute}"
        ratio, error = final_loss(metrics) / final_loss(base), standard_error(metrics, base)
        whole = sum(step["loss"] for step in metrics) / sum(step["loss"] for step in base)
        found = f"{ratio:.4f} ± {error:.4f}" if name != "none" else "1"
        lines.append(f"| {what} | {metrics[0]['loss']:.4f} | {final_loss(metrics):.4f} | {found} | {whole:.4f} |")
    last = min(LAST, len(base))
    return "\n".join(
        [*lines, "", f"{len(base)} steps; a final loss is the mean of the last {last}, ± one standard error."]
    )


def standard_error(metrics: list[dict], base: list[dict]) -> float:
    """Of the ratio of two final losses: their steps are of the same packs, so it is that of the differences."""
    apart = [a["loss"] - b["loss"] for a, b in zip(metrics[-LAST:], base[-LAST:], strict=True)]
    return statistics.stdev(apart) / len(apart) ** 0.5 / final_loss(base)


def main() -> None:
    """Run, print and write the table; exit 1 where a final loss is more than ``--within`` from that without FP8."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "demo", help="folder of a demo run; only read")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "fp8", help="runs and table.md, made anew")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1234, help="of the order of the packs")
    parser.add_argument("--compute", choices=sorted(PRECISIONS), default="fp32")
    parser.add_argument(
        "--scaling", nargs="+", choices=("tensorwise", "blockwise"), default=["tensorwise", "blockwise"]
    )
    parser.add_argument("--every-layer", action="store_true", help="the first and the last layer in FP8 too")
    parser.add_argument("--within", type=float, default=0.01, help="share of the loss")
    arguments = parser.parse_args()
    demo, out = arguments.demo.resolve(), arguments.out.resolve()
    for needed in (demo / "alignment" / "checkpoints", demo / "data" / "sft"):
        if not needed.is_dir():
            sys.exit(f"bench-fp8: there is no {needed}: run `make demo` first, or name one with --demo")
    results = {}
    for name in ("none", *arguments.scaling):
        print(f"\n== {name}", flush=True)
        precision = PRECISIONS[arguments.compute][name]
        if name != "none":
            kept = 0 if arguments.every_layer else 1
            precision = [*precision, f"precision.first_layers_bf16={kept}", f"precision.last_layers_bf16={kept}"]
        precision = [*precision, f"seed={arguments.seed}"]
        results[name] = train(demo, out / f"{arguments.compute}_{name}", arguments.steps, precision)
    read = {tuple(step["tokens"] for step in metrics) for metrics in results.values()}
    if len(read) > 1:
        sys.exit("bench-fp8: the runs did not read the same packs; their losses cannot be compared")
    text = table(results, arguments.compute)
    (out / "table.md").write_text(text + "\n")
    print(f"\n{text}\n\nwritten to {out / 'table.md'}")
    base = final_loss(results["none"])
    if any(abs(final_loss(metrics) / base - 1) > arguments.within for metrics in results.values()):
        sys.exit(f"bench-fp8: a final loss is more than {arguments.within:.0%} from that without FP8")


if __name__ == "__main__":
    main()
