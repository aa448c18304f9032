"""``make bench-fp8``: the demo's stage 2 with and without FP8, from the same checkpoint, on the same packs.

Every linear layer of the decoder computes in emulated FP8 (nemo_amalia/model/fp8_emulation.py), the first and the last
too, which conf/precision leaves out: the harder case. ``--compute fp32`` compares fp32 with FP8 on top of fp32, so that
FP8 is the only difference and a step takes seconds; ``--compute bf16`` has bf16 below both, as on a GPU, and is several
times slower on a CPU. It needs the stage 1 and the data of a demo run (``make demo``).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAPTOP = ["parallel=tp2", "launch.ranks=2", "data=demo", "checkpoint.save_interval=100000", "logging.interval=20"]
EVERY_LAYER = ["precision.first_layers_bf16=0", "precision.last_layers_bf16=0"]
PRECISIONS = {
    "fp32": {
        "none": ["precision=fp32"],
        "tensorwise": ["precision=fp32", "precision.fp8_scaling=tensorwise", "precision.fp8_format=hybrid"],
        "blockwise": ["precision=fp32", "precision.fp8_scaling=blockwise", "precision.fp8_format=e4m3"],
    },
    "bf16": {
        "none": ["precision=bf16"],
        "tensorwise": ["precision=fp8_current", *EVERY_LAYER],
        "blockwise": ["precision=fp8_blockwise", *EVERY_LAYER],
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
    """Markdown: final losses, and each against that without FP8."""
    base = results["none"]
    lines = ["| decoder's matrix products | first loss | final loss | ratio |", "|---|---|---|---|"]
    for name, metrics in results.items():
        what = compute if name == "none" else f"FP8 {name} on {compute}"
        ratio = final_loss(metrics) / final_loss(base)
        lines.append(f"| {what} | {metrics[0]['loss']:.4f} | {final_loss(metrics):.4f} | {ratio:.4f} |")
    return "\n".join([*lines, "", f"{len(base)} steps; a final loss is the mean of the last {min(LAST, len(base))}."])


def main() -> None:
    """Run, print and write the table; exit 1 where a final loss is more than ``--within`` from that without FP8."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "demo", help="folder of a demo run; only read")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "fp8", help="runs and table.md, made anew")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--compute", choices=sorted(PRECISIONS), default="fp32")
    parser.add_argument(
        "--scaling", nargs="+", choices=("tensorwise", "blockwise"), default=["tensorwise", "blockwise"]
    )
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
