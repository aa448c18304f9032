"""The figure of docs/planning.md: memory by pipeline stage and time by part of the paper's three stages.

python -m benchmarks.plan_figure [docs/images/planning.svg]: plans of conf/, no GPU, no Megatron, a second.
"""

import sys
from pathlib import Path

from nemo_amalia.cluster.plan.plan import GIB, Plan, card_gib, make_plan
from nemo_amalia.cluster.plan.request import settled

CLUSTER = "cluster=marenostrum5"
PAPER = {
    "stage 1\n8 GPUs": ["stage=alignment", "parallel=gpus8_node4", CLUSTER],
    "stage 2\n128, FP8": ["stage=sft", "parallel=gpus128_node4", "precision=fp8_current", CLUSTER],
    "stage 3\n64, FP8": ["stage=dpo", "parallel=gpus64_node4", "precision=fp8_current", CLUSTER],
}
PIPELINES = {
    "stage 2, 128 x 80 GB, TP2 x PP4": [
        "stage=sft", "parallel=gpus128_node8_pp4", "parallel.tower_recompute=false", "cluster=dgx_h100"
    ],
    "the same, tower_recompute=true": ["stage=sft", "parallel=gpus128_node8_pp4", "cluster=dgx_h100"],
}  # fmt: skip
MEMORY = {"weights": "#1f4e79", "gradients": "#4b8bbe", "optimizer": "#a7c7e7", "activations": "#d98c3f",
          "CUDA, NCCL, gaps": "#bdbdbd"}  # fmt: skip
TIME = {
    "matrices": ("#1f4e79", ("decoder", "output")),
    "attention": ("#4b8bbe", ("attention",)),
    "elementwise": ("#a7c7e7", ("elementwise", "optimizer")),
    "tower": ("#d98c3f", ("tower",)),
    "network": ("#a33b00", ()),
    "bubble, overhead": ("#bdbdbd", ("bubble", "overhead")),
}
INK = "#222222"


def plan(overrides: list[str]) -> Plan:
    """Of a run, with reckoned parameters (equal to the counted ones: tests/integration/test_plan_and_dryrun.py)."""
    run, shape, world = settled(overrides, None)
    return make_plan(run, shape, world)


def _stack(axes, names: list[str], columns: list[dict[str, float]], colours: dict[str, str]) -> None:
    bottoms = [0.0] * len(names)
    for part, colour in colours.items():
        heights = [column.get(part, 0.0) for column in columns]
        axes.bar(range(len(names)), heights, 0.66, bottom=bottoms, color=colour, label=part)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", labelsize=8)


def memory_columns(found: Plan) -> list[dict[str, float]]:
    """GiB by part, a column a pipeline stage."""
    columns = []
    for m in found.stages:
        parts = {"weights": m.weights + m.copies, "gradients": m.gradients, "optimizer": m.optimizer,
                 "activations": m.activations}  # fmt: skip
        parts = {name: size / GIB for name, size in parts.items()}
        columns.append(parts | {"CUDA, NCCL, gaps": card_gib(m.total) - m.total / GIB})
    return columns


def time_column(found: Plan) -> dict[str, float]:
    """Shares of a step, in per cent."""
    parts = {name: sum(found.step.parts.get(key, 0.0) for key in keys) for name, (_, keys) in TIME.items()}
    parts["network"] = sum(value for name, value in found.step.parts.items() if name.endswith("(network)"))
    return {name: 100 * value / found.step.seconds for name, value in parts.items()}


def _draw_memory(axes, plans: dict[str, Plan]) -> None:
    names, columns, cards = [], [], []
    for name, found in plans.items():
        stages = len(found.stages)
        start = len(names) + (stages - 1) / 2
        if stages > 1:
            axes.text(
                start, -0.13, name, ha="center", va="top", fontsize=7.5, color=INK, transform=axes.get_xaxis_transform()
            )
        names += [f"pp {i}" for i in range(stages)] if stages > 1 else [name]
        columns += memory_columns(found)
        cards += [found.run.cluster.gpu_memory_gb] * stages
    _stack(axes, names, columns, MEMORY)
    for i, card in enumerate(cards):
        axes.plot([i - 0.42, i + 0.42], [card, card], color=INK, linewidth=1.4, label=None if i else "card")
    axes.set_ylim(0, 118)
    axes.set_ylabel("GiB of a GPU", fontsize=9, color=INK)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_title("Memory, by pipeline stage", fontsize=10, loc="left", color=INK)
    axes.legend(fontsize=7, frameon=False, ncols=6, loc="upper center", columnspacing=1.2, handlelength=1.4)


def draw(path: Path) -> None:
    """Write the figure."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "plan"  # the same plans give the same file
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), width_ratios=(2.1, 1))
    plans = {name: plan(overrides) for name, overrides in PAPER.items()}
    _draw_memory(left, plans | {name: plan(words) for name, words in PIPELINES.items()})
    _stack(right, list(plans), [time_column(found) for found in plans.values()],
           {name: colour for name, (colour, _) in TIME.items()})  # fmt: skip
    for i, found in enumerate(plans.values()):
        label = f"{found.step.seconds:.1f} s\n{found.gpu_hours:,.0f} GPU-h"
        right.text(i, 102, label, ha="center", fontsize=7.5, color=INK)
    right.set_ylim(0, 122)
    right.set_ylabel("% of a step", fontsize=9, color=INK)
    right.set_title("Time of a step, by part", fontsize=10, loc="left", color=INK)
    right.tick_params(axis="x", labelsize=7)
    right.legend(fontsize=7, frameon=False, bbox_to_anchor=(1.0, 0.9), loc="upper left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=130)


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/planning.svg"))
