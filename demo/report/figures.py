"""The demo's figures: the report's curves as SVG that follows the page's light or dark theme, and the README's.

Colours are Okabe and Ito's (jfly.uni-koeln.de/color), which every kind of colour vision tells apart; lines that
may lie on each other differ in dash as well.
"""

import re
from io import StringIO
from itertools import accumulate
from typing import TYPE_CHECKING

from demo.run_folder import STAGES, RunInputs
from nemo_amalia.config.schema import MODULES

if TYPE_CHECKING:
    from markupsafe import Markup

#: Drawn in these colours, then renamed to the page's CSS variables.
_VARIABLES = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--c1)",
    "#050505": "var(--c2)",
    "#060606": "var(--c3)",
}
_PAGE = dict(zip(("ink", "muted", "line", "c1", "c2", "c3"), _VARIABLES, strict=True))
PAPER = {
    "ink": "#17202a",
    "muted": "#5d6975",
    "line": "#dfe4ea",
    "c1": "#0072b2",
    "c2": "#d55e00",
    "c3": "#009e73",
}
_DASHES = {"tower": (0, (1, 1.2)), "connector": "-", "decoder": (0, (5, 2))}


def smooth(values: list[float], reach: int) -> list[float]:
    """The mean of the `reach` values before and after each place (of fewer at the ends), so that it does not lag."""
    sums = [0.0, *accumulate(values)]
    spans = [(max(0, at - reach), min(len(values), at + reach + 1)) for at in range(len(values))]
    return [(sums[end] - sums[begin]) / (end - begin) for begin, end in spans]


def style(axes, title: str, colours: dict[str, str]) -> None:
    """Title at the left, quiet grid along y only, no frame."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=colours["ink"], pad=22)
    axes.tick_params(colors=colours["muted"], labelsize=9, length=0)
    axes.grid(axis="y", color=colours["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_facecolor("none")
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(colours["line"])


def _steps(inputs: RunInputs, stages: tuple[str, ...] = tuple(STAGES)) -> dict[str, list[int]]:
    """Each stage's steps, counted on from the stage before it."""
    offset, steps = 0, {}
    for stage in stages:
        records = inputs.stages[stage]
        steps[stage] = [offset + record["step"] for record in records]
        offset = steps[stage][-1]
    return steps


def _stage_marks(axes, steps: dict[str, list[int]], colours: dict[str, str]) -> None:
    """A thin line where a stage starts, and the names of the stages where they have room."""
    begin, end = 0, list(steps.values())[-1][-1]
    axes.set_xlim(0, end)
    axes.set_xlabel("optimizer step", fontsize=9, color=colours["muted"])
    for number, spread in enumerate(steps.values(), 1):
        if begin:
            axes.axvline(begin, color=colours["muted"], linewidth=0.8, linestyle=(0, (2, 3)))
        if spread[-1] - begin > 0.12 * end:
            axes.annotate(
                f"stage {number}",
                ((begin + spread[-1]) / 2, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                color=colours["muted"],
            )
        begin = spread[-1]


def _trace(
    axes, inputs: RunInputs, name: str, colours: dict[str, str], scale: float = 1.0, stages=tuple(STAGES)
) -> None:
    """One metric over the stages: every step faint, the running mean on top."""
    for colour, (stage, steps) in zip(("c1", "c2", "c3"), _steps(inputs, stages).items(), strict=False):
        values = [record[name] * scale for record in inputs.stages[stage]]
        axes.plot(steps, values, color=colours[colour], linewidth=0.8, alpha=0.3)
        mean = smooth(values, len(values) // 80)
        axes.plot(steps, mean, color=colours[colour], linewidth=1.9, label=STAGES[stage])


def draw_loss(axes, inputs: RunInputs, colours: dict[str, str]) -> None:
    """Mean cross-entropy of the answer tokens at each step; stage 3's loss is of pairs: draw_rewards."""
    style(axes, "Loss (nats a token)", colours)
    stages = ("alignment", "sft")
    _trace(axes, inputs, "loss", colours, stages=stages)
    _stage_marks(axes, _steps(inputs, stages), colours)
    axes.set_ylim(bottom=0)


def draw_rates(axes, inputs: RunInputs, colours: dict[str, str]) -> None:
    """The learning rate of each module, logarithmic where their peaks are far apart."""
    style(axes, "Learning rate", colours)
    steps = _steps(inputs)
    peaks = []
    for colour, module in zip(("c1", "c2", "c3"), MODULES, strict=True):
        label: str | None = module
        for stage, records in inputs.stages.items():
            pairs = [
                (at, record[f"lr/{module}"])
                for at, record in zip(steps[stage], records, strict=True)
                if f"lr/{module}" in record
            ]
            if not pairs:
                continue
            x, y = zip(*pairs, strict=True)
            axes.plot(x, y, color=colours[colour], linewidth=2, linestyle=_DASHES[module], label=label)
            label = None
            peaks.append(max(y))
    if peaks and min(peaks) > 0 and max(peaks) / min(peaks) > 10:
        axes.set_yscale("log")
        axes.set_ylim(bottom=min(peaks) / 10)
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _stage_marks(axes, steps, colours)
    if peaks:
        axes.legend(fontsize=8.5, frameon=False, labelcolor=colours["muted"], loc="best", handlelength=2.6)


def draw_speed(axes, inputs: RunInputs, colours: dict[str, str]) -> None:
    """Tokens a second of the whole machine, images' tokens included."""
    style(axes, "Tokens a second", colours)
    _trace(axes, inputs, "tokens_per_second", colours)
    _stage_marks(axes, _steps(inputs), colours)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def draw_fill(axes, inputs: RunInputs, colours: dict[str, str]) -> None:
    """How full the packs are: real tokens over capacity."""
    style(axes, "Pack fill (%)", colours)
    _trace(axes, inputs, "pack_fill", colours, scale=100.0)
    _stage_marks(axes, _steps(inputs), colours)
    axes.set_ylim(0, 104)


def draw_rewards(axes, inputs: RunInputs, colours: dict[str, str]) -> None:
    """Stage 3: beta times the log ratio of policy and reference, of both answers, mean over a step's pairs."""
    style(axes, "Stage 3: reward of pt-PT and pt-BR answers", colours)
    records = inputs.stages["dpo"]
    steps = [record["step"] for record in records]
    for colour, dash, (name, label) in zip(
        ("c3", "c2"), ("-", (0, (5, 2))), (("chosen", "pt-PT (chosen)"), ("rejected", "pt-BR (rejected)")), strict=True
    ):
        values = [record[f"rewards/{name}"] for record in records]
        axes.plot(steps, values, color=colours[colour], linewidth=1.9, linestyle=dash, label=label)
    axes.axhline(0, color=colours["muted"], linewidth=0.8, linestyle=(0, (2, 3)))
    axes.set_xlim(0, steps[-1])
    axes.set_xlabel("optimizer step of stage 3", fontsize=9, color=colours["muted"])
    axes.legend(fontsize=8.5, frameon=False, labelcolor=colours["muted"], loc="best", handlelength=2.6)


CURVES = {"loss": draw_loss, "rewards": draw_rewards, "rates": draw_rates, "speed": draw_speed, "fill": draw_fill}


def curve_svg(name: str, inputs: RunInputs, size: tuple[float, float] = (5.2, 3.1)) -> "Markup":
    """Draw one of CURVES as an <svg> element for inlining: its colours and font are the page's own.

    It may skip the page's escaping: it is drawn from numbers, and matplotlib escapes the text of labels.
    """
    import matplotlib
    from markupsafe import Markup
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure = Figure(figsize=size, layout="constrained")
        CURVES[name](figure.add_subplot(), inputs, _PAGE)
        out = StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return Markup(_inline(out.getvalue(), name))


def _inline(svg: str, name: str) -> str:
    """The bare <svg> element with themed colours, ids of its own, and width left to the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    for drawn, variable in _VARIABLES.items():
        svg = svg.replace(drawn, variable)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true" focusable="false">', svg, count=1)
