"""`amalia data mix stage=sft root=DIR`: the realised mix beside the paper's, and the file that trains on it."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from pathlib import Path

from nemo_amalia.config.schema import DataConfig
from nemo_amalia.data.mix.file import Mix, mix_path, read_mix
from nemo_amalia.data.mix.plan import Row, measure, plan
from nemo_amalia.data.mix.table import Absent, absent_lines, notes, table
from nemo_amalia.data.shards.check import prepare_command
from nemo_amalia.data.shards.metadataset import write_blend, write_epochized
from nemo_amalia.data.shards.totals import read_totals, scan, shard_counts
from nemo_amalia.utils.errors import ConfigError, DataError

USAGE = """Prints what a stage's data sets amount to, beside the paper, from their indexes alone; out= writes the blend.

  stage=sft          alignment, sft or dpo: conf/mix/<stage>.yaml; or mix=FILE, a file of your own
  root=DIR           the folder that holds one prepared folder a data set, by name
  out=mix.yaml       write the metadataset for `amalia train data.path=mix.yaml`
  blend=epochized    out= holds repetitions, not weights: exact epochs, that amalia data pack can pack ahead
  weights=tokens     shares count tokens, not samples
  shares=paper       shares are proportional to the paper's samples, not to those that are there
  passes=2           a run of two passes: repetitions double
  missing=skip       write out= without what is missing, and count that instead of listing it
  scan=true          read the shards of data sets that have no totals, once
  tokenizer=DIR      with scan=true: count their text tokens with it
"""
WORDS = ("stage", "mix", "root", "out", "blend", "weights", "shares", "passes", "missing", "scan", "tokenizer")


def add_command(subparsers: argparse._SubParsersAction) -> None:
    """`amalia data mix`."""
    parser = subparsers.add_parser(
        "mix",
        help="the data sets of a stage against the paper's, and their blend",
        description=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="key=value")
    for word in WORDS:
        parser.add_argument(f"--{word}", action=_Dashed, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


class _Dashed(argparse.Action):
    """`--out FILE`, as other commands have it: says how it is written here."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        raise ConfigError(f"{option_string} {values}: amalia data mix takes {self.dest}={values}, without --")


def run(arguments: argparse.Namespace) -> int:
    """Prints what is missing, then the table; writes out= where it is given."""
    words = parse_words(arguments.words)
    changes = {key: words[key] for key in ("weights", "shares") if key in words}
    mix = read_mix(words["mix"] if "mix" in words else mix_path(words.get("stage", "sft")), **changes)
    root = Path(words["root"])
    if not root.is_dir():
        raise ConfigError(f"root={root} is not a folder: give the one that holds a prepared folder for each data set")
    epochized = words.get("blend") == "epochized"
    if epochized:
        refuse_shares(mix)
    rows, absent = survey(mix, root, words.get("scan") == "true", words.get("tokenizer"))
    rows = plan(mix, rows, _passes(words)) if rows else rows
    skip = words.get("missing") == "skip"
    lines = [] if skip else absent_lines(absent)  # first: what is seen last is the table
    lines += [*table(mix, rows), *notes(mix, rows, absent, unlisted(mix, root), skip)]
    print("\n".join(lines))
    if "out" in words:
        write(words["out"], rows, absent, root, skip, epochized)
        print(f"written to {words['out']}: amalia train data.path={words['out']} ...")
        if epochized:
            print(f"its packs, ahead: amalia data pack {words['out']} --assets HF_FOLDER --out INDEX")
    return 0


def parse_words(words: Iterable[str]) -> dict[str, str]:
    """key=value words. Raises ConfigError on unknown keys, on a missing root, and on words that exclude each other."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise ConfigError(f"{word!r} is not key=value: as in stage=sft root=DIR")
        if key not in WORDS:
            near = difflib.get_close_matches(key, WORDS, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(WORDS)}"
            raise ConfigError(f"unknown word {key!r}: {hint}")
        found[key] = value
    if "root" not in found:
        raise ConfigError("root=DIR is needed: the folder that holds a prepared folder for each data set")
    if "stage" in found and "mix" in found:
        raise ConfigError("stage= and mix= exclude each other: a stage is conf/mix/<stage>.yaml")
    for key, choices in (
        ("missing", ("fail", "skip")),
        ("scan", ("true", "false")),
        ("blend", ("weighted", "epochized")),
    ):
        if found.get(key, choices[0]) not in choices:
            raise ConfigError(f"{key}={found[key]}: expected {' or '.join(choices)}")
    if "tokenizer" in found and found.get("scan") != "true":
        raise ConfigError("tokenizer= counts text while shards are read: add scan=true")
    return found


def refuse_shares(mix: Mix) -> None:
    """Raises ConfigError where repetitions cannot say what the shares are to be."""
    if (mix.weights, mix.shares) != ("samples", "realised"):
        raise ConfigError(
            f"blend=epochized holds each sample as often as its source's repeat says, and weights={mix.weights} "
            f"shares={mix.shares} asks for other shares: set weights=samples shares=realised, or blend=weighted"
        )


def _passes(words: dict[str, str]) -> float:
    try:
        return float(words.get("passes", 1))
    except ValueError as error:
        raise ConfigError(f"passes={words['passes']}: expected a number, as in passes=2") from error


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
        except DataError:
            if any(folder.glob("*.tar")):
                command = prepare_command(folder)
            absent.append(Absent(source, "no index", command))
            continue
        if not available:
            absent.append(Absent(source, "empty", command))
            continue
        totals = read_totals(folder)
        if read_shards and (totals is None or (chat and totals.tokenizer != tokenizer)):
            print(f"reading {folder}: {available:,} samples", flush=True)
            totals = scan(folder, chat, tokenizer or "", max_image_pixels=DataConfig.max_image_pixels)
        rows.append(measure(mix, source, available, totals))
    return rows, absent


def _chat(folder: str):
    from transformers import AutoTokenizer

    from nemo_amalia.data.encoding.chat import ChatFormat

    if not Path(folder).is_dir():
        raise ConfigError(f"tokenizer={folder} is not a folder: give one with tokenizer.json and a chat template")
    return ChatFormat(AutoTokenizer.from_pretrained(folder, local_files_only=True))


def unlisted(mix: Mix, root: Path) -> list[str]:
    """Prepared folders of root that the mix does not name."""
    known = {source.name for source in mix.sources}
    prepared = (path.name for path in root.iterdir() if (path / ".nv-meta").is_dir())
    return sorted(name for name in prepared if name not in known and not name.startswith("."))


def write(out: str, rows: list[Row], absent: list[Absent], root: Path, skip: bool, epochized: bool) -> None:
    """The blend as Energon's metadataset: weights that sum to 1, or the repetitions of one pass.

    Raises ConfigError when sources are missing.
    """
    if absent and not skip:
        names = ", ".join(each.source.name for each in absent[:3]) + (" ..." if len(absent) > 3 else "")
        raise ConfigError(
            f"{len(absent)} of the mix's sources are missing ({names}), so {out} was not written: make them with the "
            "commands above, or leave them out knowingly with missing=skip"
        )
    if not rows:
        raise ConfigError(f"none of the mix's sources is in {root}, so {out} was not written")
    whole = sum(row.draws for row in rows)
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        if epochized:
            write_epochized([(root / row.source.name, row.source.repeat) for row in rows], out)
        else:
            write_blend([(root / row.source.name, row.draws / whole) for row in rows], out)
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written ({error.strerror}): choose another place") from error
