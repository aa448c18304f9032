"""`amalia data mix stage=sft root=DIR`: the realised mix beside the paper's, and the file that trains on it."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nemo_amalia.data.mix import Row, measure, plan, shares
from nemo_amalia.data.mix_file import Mix, Source, mix_path, read_mix
from nemo_amalia.data.shards import PREPARE, write_blend, write_epochized
from nemo_amalia.data.totals import read_totals, scan, shard_counts

USAGE = """Prints what a stage's data sets amount to, beside the paper, from their indexes alone; out= writes the blend.

  stage=sft          alignment, sft or dpo: conf/mix/<stage>.yaml; or mix=FILE, a file of your own
  root=DIR           the folder that holds one prepared folder a data set, by name
  out=mix.yaml       write the metadataset for `amalia train data.path=mix.yaml`
  blend=epochized    out= holds repetitions, not weights: exact epochs, that amalia data pack can pack ahead
  weights=tokens     shares count tokens, not samples
  shares=paper       shares are proportional to the paper's samples, not to those that are there
  passes=2           a run of two passes: repetitions double
  missing=skip       write out= without what is missing
  scan=true          read the shards of data sets that have no totals, once
  tokenizer=DIR      with scan=true: count their text tokens with it
"""
WORDS = ("stage", "mix", "root", "out", "blend", "weights", "shares", "passes", "missing", "scan", "tokenizer")


@dataclass(frozen=True)
class Absent:
    """A source that cannot be used: its folder is missing, empty or not prepared."""

    source: Source
    reason: str
    command: str


def add_command(subparsers: argparse._SubParsersAction) -> None:
    """`amalia data mix`."""
    parser = subparsers.add_parser(
        "mix",
        help="the data sets of a stage against the paper's, and their blend",
        description=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="key=value")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the table; writes out= where it is given."""
    words = parse_words(arguments.words)
    changes = {key: words[key] for key in ("weights", "shares") if key in words}
    mix = read_mix(words["mix"] if "mix" in words else mix_path(words.get("stage", "sft")), **changes)
    root = Path(words["root"])
    if not root.is_dir():
        raise ValueError(f"root={root} is not a folder: give the one that holds a prepared folder for each data set")
    epochized = words.get("blend") == "epochized"
    if epochized:
        refuse_shares(mix)
    rows, absent = survey(mix, root, words.get("scan") == "true", words.get("tokenizer"))
    rows = plan(mix, rows, _passes(words)) if rows else rows
    print("\n".join(table(mix, rows)))
    print("\n".join(notes(mix, rows, absent, unlisted(mix, root))))
    if "out" in words:
        write(words["out"], rows, absent, root, words.get("missing") == "skip", epochized)
        print(f"written to {words['out']}: amalia train data.path={words['out']} ...")
        if epochized:
            print(f"its packs, ahead: amalia data pack {words['out']} --assets HF_FOLDER --out INDEX")
    return 0


def parse_words(words: Iterable[str]) -> dict[str, str]:
    """key=value words. Raises ValueError on unknown keys, on a missing root, and on words that exclude each other."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise ValueError(f"{word!r} is not key=value: as in stage=sft root=DIR")
        if key not in WORDS:
            near = difflib.get_close_matches(key, WORDS, n=1, cutoff=0.5)
            raise ValueError(f"unknown word {key!r}: {f'did you mean {near[0]}?' if near else ', '.join(WORDS)}")
        found[key] = value
    if "root" not in found:
        raise ValueError("root=DIR is needed: the folder that holds a prepared folder for each data set")
    if "stage" in found and "mix" in found:
        raise ValueError("stage= and mix= exclude each other: a stage is conf/mix/<stage>.yaml")
    for key, choices in (
        ("missing", ("fail", "skip")),
        ("scan", ("true", "false")),
        ("blend", ("weighted", "epochized")),
    ):
        if found.get(key, choices[0]) not in choices:
            raise ValueError(f"{key}={found[key]}: expected {' or '.join(choices)}")
    if "tokenizer" in found and found.get("scan") != "true":
        raise ValueError("tokenizer= counts text while shards are read: add scan=true")
    return found


def refuse_shares(mix: Mix) -> None:
    """Raises ValueError where repetitions cannot say what the shares are to be."""
    if (mix.weights, mix.shares) != ("samples", "realised"):
        raise ValueError(
            f"blend=epochized holds each sample as often as its source's repeat says, and weights={mix.weights} "
            f"shares={mix.shares} asks for other shares: set weights=samples shares=realised, or blend=weighted"
        )


def _passes(words: dict[str, str]) -> float:
    try:
        return float(words.get("passes", 1))
    except ValueError as error:
        raise ValueError(f"passes={words['passes']}: expected a number, as in passes=2") from error


def survey(mix: Mix, root: Path, read_shards: bool = False, tokenizer: str | None = None):
    """(rows of the sources that are there, Absent of the others), in the mix's order, from indexes and totals alone.

    read_shards: make the totals that are not there, or were not counted with `tokenizer`, a folder.
    """
    chat = _chat(tokenizer) if tokenizer else None
    rows: list[Row] = []
    absent: list[Absent] = []
    for source in mix.sources:
        folder = root / source.name
        command = mix.command(source, folder)
        if not folder.is_dir():
            absent.append(Absent(source, "missing", command))
            continue
        try:
            available = sum(shard_counts(folder).values())
        except ValueError:
            if any(folder.glob("*.tar")):
                command = PREPARE.format(folder=folder)
            absent.append(Absent(source, "no index", command))
            continue
        if not available:
            absent.append(Absent(source, "empty", command))
            continue
        totals = read_totals(folder)
        if read_shards and (totals is None or (chat and totals.tokenizer != tokenizer)):
            print(f"reading {folder}: {available:,} samples", flush=True)
            totals = scan(folder, chat, tokenizer or "")
        rows.append(measure(mix, source, available, totals))
    return rows, absent


def _chat(folder: str):
    from transformers import AutoTokenizer

    from nemo_amalia.data.chat import ChatFormat

    if not Path(folder).is_dir():
        raise ValueError(f"tokenizer={folder} is not a folder: give one with tokenizer.json and a chat template")
    return ChatFormat(AutoTokenizer.from_pretrained(folder, local_files_only=True))


def unlisted(mix: Mix, root: Path) -> list[str]:
    """Prepared folders of root that the mix does not name."""
    known = {source.name for source in mix.sources}
    prepared = (path.name for path in root.iterdir() if (path / ".nv-meta").is_dir())
    return sorted(name for name in prepared if name not in known and not name.startswith("."))


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


def notes(mix: Mix, rows: list[Row], absent: list[Absent], others: list[str]) -> list[str]:
    """What the table does not say: how it was counted, what is missing and the command for it."""
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
        lines.append(f"missing: {len(absent)} of {len(mix.sources)} sources, {100 * part:.1f} % of the paper's samples")
        width = max(len(each.source.name) for each in absent)
        lines += [
            f"  {each.source.name:<{width}}  {each.reason}; {each.source.source}; make it: {each.command}"
            for each in absent
        ]
    return lines


def write(out: str, rows: list[Row], absent: list[Absent], root: Path, skip: bool, epochized: bool) -> None:
    """The blend as Energon's metadataset: weights that sum to 1, or the repetitions of one pass.

    Raises ValueError when sources are missing.
    """
    if absent and not skip:
        names = ", ".join(each.source.name for each in absent[:3]) + (" ..." if len(absent) > 3 else "")
        raise ValueError(
            f"{len(absent)} of the mix's sources are missing ({names}), so {out} was not written: make them with the "
            "commands above, or leave them out knowingly with missing=skip"
        )
    if not rows:
        raise ValueError(f"none of the mix's sources is in {root}, so {out} was not written")
    whole = sum(row.draws for row in rows)
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        if epochized:
            write_epochized([(root / row.source.name, row.source.repeat) for row in rows], out)
        else:
            write_blend([(root / row.source.name, row.draws / whole) for row in rows], out)
    except OSError as error:
        raise ValueError(f"out={out} cannot be written ({error.strerror}): choose another place") from error
