"""The report of a demo run: one page that opens from the disk, its pictures beside it, nothing from the network.

python -m demo.report.page --run RUN --out RUN/report [--readme docs/images/demo.png]
"""

import argparse
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from demo import score
from demo.errors import DemoError
from demo.report import variety as report_variety
from demo.report.cards import cards, kind_buttons, outcome_buttons
from demo.report.figures import CURVES, curve_svg
from demo.run_folder import KIND_NAMES, STAGES, RunInputs, read_run
from demo.score import Tally
from nemo_amalia.utils.errors import UserError
from nemo_amalia.utils.page import percent, render

TARGET = 0.90  # issue 2: at least 90 % of the held-out scene questions
TEMPLATE = Path(__file__).parent / "templates" / "report.html.j2"
_CURVE_TEXT = {
    "loss": "Loss at each step of stages 1 and 2",
    "rewards": "Rewards of chosen and rejected answers at each step of stage 3",
    "rates": "Learning rate of tower, connector and decoder at each step",
    "speed": "Tokens a second at each step",
    "fill": "Share of each pack's capacity that holds tokens, at each step",
}


def duration(seconds: float) -> str:
    """Format seconds as "42 s" or "7 min 05 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def count(number: float) -> str:
    """Format a number with thousands separated; from ten thousand on with three digits, in thousands or millions."""
    for size, unit in ((1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e6 if unit == 'M' else 1e3):.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{number:,.0f}"


def tiles(inputs: RunInputs) -> list[tuple[str, str]]:
    """List the numbers of the run at a glance: given facts first, then what the metrics add up to."""
    facts = inputs.facts
    pairs = []
    if "parameters" in facts:
        pairs.append(("parameters", count(facts["parameters"])))
    if "layout" in facts:
        pairs.append(("layout", re.split(", | with ", str(facts["layout"]))[0]))  # in full among the facts below
    pairs.append(("tokens trained on", count(sum(inputs.total(stage, "tokens") for stage in STAGES))))
    tokens, seconds = inputs.total("sft", "tokens"), inputs.total("sft", "seconds")
    pairs.append(("tokens a second, stage 2", count(tokens / seconds)))
    pairs.append(("pack fill, stage 2", percent(mean_fill(inputs, "sft"))))
    if facts.get("seconds"):
        pairs.append(("from data to answers", duration(sum(facts["seconds"].values()))))
    if facts.get("peak_memory_bytes"):
        pairs.append(("memory, at most", f"{facts['peak_memory_bytes'] / 2**30:.1f} GiB"))
    return pairs


def mean_fill(inputs: RunInputs, stage: str) -> float:
    """Tokens over capacity of a whole stage, in 0..1 (steps weigh by their capacity)."""
    capacity = sum(step["tokens"] / step["pack_fill"] for step in inputs.stages[stage] if step["pack_fill"])
    return inputs.total(stage, "tokens") / capacity if capacity else 0.0


@dataclass(frozen=True)
class KindRow:
    """One kind of question in the table, or the sum of several; `title` is its English name."""

    name: str
    title: str
    before: Tally
    after: Tally
    total: bool = False


def kinds_table(inputs: RunInputs) -> list[list[KindRow]]:
    """Count two blocks of rows: the kinds of scene question and their sum, then the other sources and all."""
    blocks = []
    for scenes in (True, False):
        chosen = [[r for r in records if (r["source"] == score.SCENES) == scenes]
                  for records in (inputs.struck, inputs.after)]  # fmt: skip
        before, after = (score.by_kind(records) for records in chosen)
        rows = [KindRow(kind, KIND_NAMES.get(kind, kind), before[kind], after[kind]) for kind in after]
        name, summed = ("all scene questions", chosen) if scenes else ("every question", (inputs.struck, inputs.after))
        blocks.append([*rows, KindRow(name, name, *map(score.tally, summed), total=True)])
    return blocks


def stages_table(inputs: RunInputs) -> list[tuple[str, list[str]]]:
    """Sum up what each stage went through: its name and its cells, in the order of the template's header."""
    rows = []
    for stage, title in STAGES.items():
        steps = inputs.stages[stage]
        tokens, seconds = inputs.total(stage, "tokens"), inputs.total(stage, "seconds")
        tail = steps[-max(1, len(steps) // 20) :]
        first, last = steps[0]["loss"], sum(step["loss"] for step in tail) / len(tail)
        cells = [
            f"{len(steps):,}", f"{inputs.total(stage, 'samples'):,.0f}", count(tokens),
            percent(inputs.total(stage, "image_tokens") / tokens), count(inputs.total(stage, "tiles")),
            percent(mean_fill(inputs, stage)), f"{tokens / seconds:,.0f}", duration(seconds),
            f"{first:.2f} → {last:.2f}",
        ]  # fmt: skip
        rows.append((title, cells))
    return rows


def clock(inputs: RunInputs) -> list[tuple[str, float, str]]:
    """List where the time went as (step, seconds, duration); empty where facts.json gives no seconds."""
    seconds: dict[str, float] = inputs.facts.get("seconds") or {}
    return [(name, value, duration(value)) for name, value in seconds.items()]


def facts_list(inputs: RunInputs) -> list[tuple[str, str]]:
    """List the other facts as they were given, versions one by one."""
    pairs = []
    for name, value in inputs.facts.items():
        if name == "seconds":
            continue
        inner = value.items() if isinstance(value, dict) else [(name.replace("_", " "), value)]
        pairs += [(str(key), f"{item:,}" if isinstance(item, int) else str(item)) for key, item in inner]
    return pairs


def page(inputs: RunInputs) -> str:
    """Render the page; every number in it is computed from the inputs."""
    before, after = score.scene_accuracy(inputs.before), score.scene_accuracy(inputs.after)
    if not after.asked:
        raise DemoError(f"{inputs.folder} asked no scene question: run demo.answer with --samples 10 or more")
    return render(
        TEMPLATE,
        before=before,
        after=after,
        target=TARGET,
        tiles=tiles(inputs),
        kinds=kinds_table(inputs),
        variety=report_variety.section(inputs),
        curves=[(_CURVE_TEXT[name], curve_svg(name, inputs)) for name in CURVES],
        stages=stages_table(inputs),
        clock=clock(inputs),
        facts=facts_list(inputs),
        outcome_buttons=outcome_buttons(inputs),
        kind_buttons=kind_buttons(inputs),
        cards=cards(inputs),
    )


def build(run: Path, out: Path) -> Path:
    """Write `out`/report.html and copy its pictures to `out`/images; returns the page's path.

    Raises:
        DemoError: an input is missing or torn (demo/run_folder.py), or `out` cannot be written.
    """
    inputs = read_run(run)
    html = page(inputs)
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        for record in inputs.after:
            shutil.copyfile(inputs.folder / record["image"], out / "images" / Path(record["image"]).name)
        (out / "report.html").write_text(html, encoding="utf-8")
    except OSError as error:
        raise DemoError(f"cannot write {out}: {error.strerror}: choose a folder that can be written") from error
    return out / "report.html"


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.report.page", description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of the finished run")
    parser.add_argument("--out", type=Path, help="folder of the report (RUN/report)")
    parser.add_argument("--readme", type=Path, help="also write the README's figure to this PNG")
    args = parser.parse_args(argv)
    try:
        path = build(args.run, args.out or args.run / "report")
        if args.readme:
            from demo.report.readme_figure import readme_figure

            readme_figure(read_run(args.run), args.readme)
    except (DemoError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"report: {path.resolve().as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
