"""What `amalia data mix` prints: the realised mix beside the paper's, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass

from nemo_amalia.data.mix.file import Mix, Source
from nemo_amalia.data.mix.plan import Row, shares


@dataclass(frozen=True)
class Absent:
    """A source that cannot be used: its folder is missing, empty or not prepared."""

    source: Source
    reason: str
    command: str


def table(mix: Mix, rows: list[Row]) -> list[str]:
    """Lines: a category, its sources below it, all in the mix's order; the last one is the whole."""
    share = shares(rows)
    paper = sum(source.samples for source in mix.sources)
    width = max(len(label) for label in (*mix.categories, *(f"  {source.name}" for source in mix.sources)))
    heads = ("samples", "paper's", "epochs", "share %", "paper %", "text tok", "image tok", "tokens %")
    lines = [" " * width + "".join(f"{head:>11}" for head in heads)]
    for category, printed in mix.categories.items():
        listed = sum(source.samples for source in mix.sources if source.category == category)
        own = [row for row in rows if row.source.category == category]
        lines.append(_line(category, width, own, listed, f"{printed:.1f}", share))
        lines += [
            _line(
                f"  {row.source.name}",
                width,
                [row],
                row.source.samples,
                f"{100 * row.source.samples / paper:.2f}",
                share,
            )
            for row in own
        ]
    return [*lines, _line("all", width, rows, paper, f"{sum(mix.categories.values()):.1f}", share)]


def _line(label: str, width: int, rows: list[Row], listed: int, printed: str, share) -> str:
    """Sums over rows. Tokens are those of the run: a folder's, times its epochs."""
    samples = sum(row.available for row in rows)
    epochs = f"{sum(row.draws for row in rows) / samples:.2f}" if samples else "-"
    of_draws = f"{100 * sum(share[row.source.name][0] for row in rows):.2f}"
    of_tokens = [share[row.source.name][1] for row in rows]
    percent = f"{100 * sum(of_tokens):.2f}" if None not in of_tokens and rows else "-"
    text = _sum([row.text_tokens for row in rows], rows, all(row.text_counted for row in rows))
    image = _sum([row.image_tokens for row in rows], rows, all(row.size_step == 1 for row in rows))
    cells = (short(samples), short(listed), epochs, of_draws, printed, text, image, percent)
    return f"{label:<{width}}" + "".join(f"{cell:>11}" for cell in cells)


def _sum(values: list[float | None], rows: list[Row], exact: bool) -> str:
    if not rows or None in values:
        return "-" if not rows else "?"
    return ("" if exact else "~") + short(sum(value * row.epochs for value, row in zip(values, rows, strict=True)))


def short(number: float) -> str:
    """4,657 or 4.66M or 2.00B."""
    for size, suffix in ((1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.2f}{suffix}"
    return f"{number:,.0f}"


def absent_lines(absent: list[Absent]) -> list[str]:
    """Every source that is missing, with the command that makes it."""
    width = max((len(each.source.name) for each in absent), default=0)
    return [
        f"  {each.source.name:<{width}}  {each.reason}; {each.source.source}; make it: {each.command}"
        for each in absent
    ] + [""] * bool(absent)


def notes(mix: Mix, rows: list[Row], absent: list[Absent], others: list[str], skip: bool = False) -> list[str]:
    """What the table does not say: how it was counted, and how much is missing. skip: it was not listed."""
    lines = [
        f"weights={mix.weights} shares={mix.shares}: share % is of samples drawn; tokens are those drawn in the run."
    ]
    if not all(row.text_counted for row in rows):
        lines.append(
            f"~ text: {mix.text.characters_per_token:g} characters a token and {mix.text.tokens_per_turn:g} tokens a "
            "turn; scan=true tokenizer=DIR counts them."
        )
    if any(row.size_step > 1 for row in rows):
        lines.append(f"~ image: of sizes rounded to {max(row.size_step for row in rows)} pixels and less.")
    unfit = [f"{r.source.name} ({r.unfit} samples, {r.unreadable} images)" for r in rows if r.unfit or r.unreadable]
    if unfit:
        lines.append(f"counted above, and dropped or refused by training: {', '.join(unfit)}")
    unknown = [row.source.name for row in rows if row.text_tokens is None]
    if unknown:
        lines.append(f"? no totals beside the index of {', '.join(unknown)}: scan=true makes them.")
    if mix.paper.text_tokens:
        lines.append(f"the paper gives {short(mix.paper.text_tokens)} text tokens in all, and no image tokens.")
    if others:
        lines.append(f"prepared folders that the mix does not name, left out: {', '.join(others)}")
    if absent:
        listed = sum(source.samples for source in mix.sources)
        part = sum(each.source.samples for each in absent) / listed
        where = "without missing=skip they are listed with their commands" if skip else "their commands are above"
        number = f"{len(absent)} of {len(mix.sources)} sources, {100 * part:.1f} % of the paper's samples"
        lines.append(f"missing: {number} ({where})")
    return lines
