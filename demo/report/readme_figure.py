"""The README's picture of a demo run: held-out questions before and after, drawings before and after stage 3."""

import textwrap
from pathlib import Path

from demo import score, variety
from demo.errors import DemoError
from demo.report.figures import PAPER, draw_loss, draw_rewards, style
from demo.run_folder import KIND_NAMES, RunInputs
from demo.score import is_correct
from demo.variety import DRAWINGS, forms_of

PIXELS = (1600, 1030)
_DPI = 100
_COLUMNS, _ROWS = 4, 2
_GOOD, _BAD = "#00694c", "#a33b00"


def examples(inputs: RunInputs, number: int = _COLUMNS * _ROWS) -> list[tuple[dict, dict]]:
    """(before, after) of the first question of each kind, right or wrong: nothing is picked for its answer."""
    first: dict[str, tuple[dict, dict]] = {}
    for before, after in zip(inputs.before, inputs.after, strict=True):
        if after["source"] != DRAWINGS:
            first.setdefault(after["kind"], (before, after))
    return list(first.values())[:number]


def drawings(inputs: RunInputs, number: int = _COLUMNS) -> list[tuple[dict, dict]]:
    """(after stage 2, after stage 3) of the first question about each thing drawn."""
    first: dict[str, tuple[dict, dict]] = {}
    for sft, after in zip(inputs.sft, inputs.after, strict=True):
        if after["source"] == DRAWINGS:
            first.setdefault(after["answer"].split()[-2], (sft, after))
    return list(first.values())[:number]


def clip(text: str, width: int = 24) -> str:
    """One line of at most `width` characters."""
    line = " ".join(text.split()) or "(nothing)"
    return line if len(line) <= width else line[: width - 1] + "…"


def _box(left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
    """Pixels from the top left -> the figure's fractions from the bottom left."""
    return left / PIXELS[0], 1 - (top + height) / PIXELS[1], width / PIXELS[0], height / PIXELS[1]


def _strike(figure, text) -> None:
    """A line through a text that stands on the figure."""
    from matplotlib.lines import Line2D

    box = text.get_window_extent().transformed(figure.transFigure.inverted())
    middle = box.y0 + 0.46 * box.height
    figure.add_artist(Line2D([box.x0, box.x1], [middle, middle], color=PAPER["muted"], linewidth=1.1))


def _picture(figure, inputs: RunInputs, record: dict, left: float, top: float, side: float) -> None:
    """A record's picture, at most ``side`` pixels wide and high."""
    import numpy as np
    from PIL import Image

    with Image.open(inputs.folder / record["image"]) as opened:
        picture = opened.convert("RGB")
    axes = figure.add_axes(_box(left, top, side, side))
    axes.imshow(np.asarray(picture))
    axes.set_anchor("W")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(PAPER["line"])


def _drawing(figure, inputs: RunInputs, pair: tuple[dict, dict], left: float, top: float) -> None:
    """One drawing: picture, stage 2's answer struck through where it has a pt-BR form, stage 3's with its mark."""
    sft, after = pair
    right = is_correct(after["prediction"], after["answer"])
    _picture(figure, inputs, after, left, top, 150)
    for number, (record, offset) in enumerate(((sft, 158), (after, 196))):
        brazilian = forms_of(record["prediction"]).brazilian
        colour = PAPER["muted"] if number == 0 else (_GOOD if right else _BAD)
        mark = "" if number == 0 else ("✓ " if right else "✗ ")
        for row, line in enumerate(textwrap.wrap(mark + clip(record["prediction"], 60), 31)[:2]):
            x, y, _, _ = _box(left, top + offset + 17 * row, 0, 0)
            said = figure.text(x, y, line, va="top", fontsize=9.6, color=colour, fontweight="bold" if number else None)
            if number == 0 and brazilian:
                _strike(figure, said)


def _example(figure, inputs: RunInputs, pair: tuple[dict, dict], left: float, top: float) -> None:
    """One question: picture, question, answer before struck through, answer after with its mark."""
    before, after = pair
    _picture(figure, inputs, after, left, top, 184)

    def say(line: str, offset: float, **how):
        x, y, _, _ = _box(left, top + offset, 0, 0)
        return figure.text(x, y, line, va="top", **how)

    question = textwrap.wrap(after["question"], 29)[:2]
    say("\n".join(question), 192, fontsize=9.6, fontweight="bold", color=PAPER["ink"], linespacing=1.25)
    below = 192 + 17 * len(question)
    was = say(clip(before["prediction"]), below + 4, fontsize=9.6, color=PAPER["muted"])
    if before["prediction"].strip() and not is_correct(before["prediction"], before["answer"]):
        _strike(figure, was)
    right = is_correct(after["prediction"], after["answer"])
    now = (
        f"✓ {clip(after['prediction'])}"
        if right
        else f"✗ {clip(after['prediction'], 14)} ({clip(after['answer'], 12)})"
    )
    say(now, below + 24, fontsize=11.5, fontweight="bold", color=_GOOD if right else _BAD)


def _bars(axes, inputs: RunInputs) -> None:
    """Accuracy of each kind before (grey) and after (green)."""
    style(axes, "Right answers by kind (%; grey: before training)", PAPER)
    before, after = score.by_kind(inputs.before), score.by_kind(inputs.after)
    names = [KIND_NAMES.get(kind, kind) for kind in after]
    places = range(len(names))
    axes.barh([p - 0.2 for p in places], [before[k].share * 100 for k in after], 0.26, color="#b3bcc5", label="before")
    axes.barh([p + 0.1 for p in places], [after[k].share * 100 for k in after], 0.38, color=PAPER["c3"], label="after")
    for place, kind in zip(places, after, strict=True):
        axes.text(after[kind].share * 100 + 1.5, place + 0.1, f"{after[kind].share * 100:.0f}", va="center",
                  fontsize=8.5, color=PAPER["ink"])  # fmt: skip
    axes.set_yticks(list(places), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 108)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)


def readme_figure(inputs: RunInputs, out: Path) -> None:
    """Write the picture (PIXELS wide and high) as PNG to `out`.

    Raises:
        DemoError: `out` cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(PIXELS[0] / _DPI, PIXELS[1] / _DPI), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(figure)
        before, after = score.scene_accuracy(inputs.before), score.scene_accuracy(inputs.after)
        x, y, _, _ = _box(40, 28, 0, 0)
        figure.text(x, y, f"{before.share * 100:.1f} % → {after.share * 100:.1f} %", va="top", fontsize=25,
                    fontweight="bold", color=PAPER["ink"])  # fmt: skip
        x, y, _, _ = _box(40, 76, 0, 0)
        figure.text(
            x, y, f"right answers to {after.asked} held-out scene questions, before and after training",
            va="top", fontsize=11.5, color=PAPER["muted"],
        )  # fmt: skip
        for index, pair in enumerate(examples(inputs)):
            row, column = divmod(index, _COLUMNS)
            _example(figure, inputs, pair, 40 + 246 * column, 122 + 296 * row)
        forms = [variety.forms(records).brazilian_share * 100 for records in (inputs.sft, inputs.after)]
        x, y, _, _ = _box(40, 722, 0, 0)
        figure.text(
            x, y, f"Stage 3: from {forms[0]:.0f} % to {forms[1]:.0f} % pt-BR forms, on held-out drawings",
            va="top", fontsize=14, fontweight="bold", color=PAPER["ink"],
        )  # fmt: skip
        for index, pair in enumerate(drawings(inputs)):
            _drawing(figure, inputs, pair, 40 + 246 * index, 762)
        draw_rewards(figure.add_axes(_box(1100, 772, 460, 200)), inputs, PAPER)
        draw_loss(figure.add_axes(_box(1100, 62, 460, 222)), inputs, PAPER)
        _bars(figure.add_axes(_box(1160, 372, 400, 320)), inputs)
        try:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(out, dpi=_DPI)
        except OSError as error:
            raise DemoError(f"cannot write {out}: {error.strerror}: choose a folder that can be written") from error
