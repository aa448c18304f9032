"""`amalia data pack`: every shard is read once, in order, for lengths alone; the packs become a small file.

No pixel is decoded or moved. Training with `data.pack_index` then knows its packs before it starts: exact epochs, exact
totals, and packs that are filled better than a buffer of some hundred samples can fill them.
"""

from __future__ import annotations

import argparse
import sys
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

from nemo_amalia.data.image_headers import MAX_PIXELS, check_max_pixels

HELP = "lengths -> an index of packs: exact epochs, fuller packs, a position that any layout can resume"


def add_command(subparsers: argparse._SubParsersAction) -> None:
    """amalia data pack SOURCE --assets HF_FOLDER --out INDEX"""
    pack = subparsers.add_parser("pack", help=HELP, description=HELP)
    pack.add_argument("source", type=Path, help="a folder of prepared shards")
    pack.add_argument("--assets", type=Path, required=True, help="a LLaVA-NeXT folder, or a checkpoint's hf folder")
    pack.add_argument("--out", type=Path, required=True, help="the index to write; must not be there yet")
    pack.add_argument("--seq-length", type=int, default=16384, help="tokens of a pack (stage.seq_length)")
    pack.add_argument("--segment-multiple", type=int, default=1, help="2 x parallel.context where that is over 1")
    pack.add_argument("--tiling", action=argparse.BooleanOptionalAction, default=True, help="as stage.tiling")
    pack.add_argument("--max-image-pixels", type=int, default=MAX_PIXELS, help="as data.max_image_pixels")
    pack.add_argument("--window", type=int, default=4000, help="samples, of neighbouring shards, packed together")
    pack.add_argument("--algorithm", default="best_fit_decreasing", help="or balanced: every pack a mix of lengths")
    pack.add_argument("--workers", type=int, default=2, help="processes that read shards; 0: this one")
    pack.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the index and say what is in it. Raises ValueError on what cannot be packed."""
    head = make_index(
        arguments.source,
        arguments.assets,
        arguments.out,
        seq_length=arguments.seq_length,
        segment_multiple=arguments.segment_multiple,
        tiling=arguments.tiling,
        max_image_pixels=arguments.max_image_pixels,
        window=arguments.window,
        algorithm=arguments.algorithm,
        workers=arguments.workers,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print("\n".join(describe(head, arguments.out)))
    return 0


def make_index(
    source: Path,
    assets: Path,
    out: Path,
    *,
    seq_length: int,
    segment_multiple: int = 1,
    tiling: bool = True,
    max_image_pixels: int = MAX_PIXELS,
    window: int = 4000,
    algorithm: str = "best_fit_decreasing",
    workers: int = 0,
    say=lambda line: None,
) -> dict[str, Any]:
    """Writes the index and returns its head. Nothing is written before the end, and then whole or not at all.

    Raises ValueError on a source, assets or settings that do not work, and when no sample is left.
    """
    from nemo_amalia.data.assets import read_assets
    from nemo_amalia.data.encoding import ConversationEncoder
    from nemo_amalia.data.pack_index import data_identity, settings_of, write_index
    from nemo_amalia.data.pack_measure import measure_shards
    from nemo_amalia.data.pack_windows import WindowPacker
    from nemo_amalia.data.records import training_shards
    from nemo_amalia.data.shards import check_folder

    _check(seq_length, segment_multiple, workers, out)
    check_max_pixels(max_image_pixels, "--max-image-pixels")
    packer = WindowPacker(seq_length, segment_multiple, window, algorithm)
    identity, source = data_identity(check_folder(source)), check_folder(source)
    hf = read_assets(assets)
    chat, geometry = hf.chat, hf.geometry
    encoder = ConversationEncoder(chat, geometry, seq_length, tiling, max_image_pixels)
    shards, excluded = training_shards(source)
    book, progress = _Book(), _Progress(len(shards), say)
    for number, found in enumerate(measure_shards(source, shards, encoder, excluded, workers)):
        book.take(number, found)
        book.packs_of(packer.add, found.lengths)
        progress(number + 1, book.samples)
    book.packs_of(packer.finish)
    if not book.counts:
        raise ValueError(f"no sample of {source} can be trained on: {_reasons(book.dropped)}; {book.first_example()}")
    return write_index(
        out,
        {
            "settings": settings_of(chat, geometry, seq_length, segment_multiple, tiling, max_image_pixels),
            "data": {"identity": identity, "folder": source.name, "shards": shards},
            "totals": book.totals(seq_length),
            "examples": book.examples,
            "window": window,
            "algorithm": algorithm,
            "seconds": {"reading": round(progress.seconds() - book.seconds, 1), "packing": round(book.seconds, 3)},
        },
        book.arrays(),
    )


def _check(seq_length: int, segment_multiple: int, workers: int, out: Path) -> None:
    if out.exists():
        raise ValueError(f"{out} is there already: choose another name, or remove it")
    if segment_multiple < 1 or seq_length < 1 or seq_length % segment_multiple:
        raise ValueError(
            f"--seq-length {seq_length} is not a multiple of --segment-multiple {segment_multiple}: "
            "take 2 x parallel.context, or 1 without context parallelism"
        )
    if workers < 0:
        raise ValueError(f"--workers is {workers}: give 0 (read here) or more")


class _Book:
    """What has been read and packed so far."""

    def __init__(self) -> None:
        # Arrays of machine integers: a list of millions of Python's would take gigabytes.
        self.columns = {name: array("q") for name in ("shards", "offsets", "sizes", "lengths")}
        self.order, self.counts = array("q"), array("q")  # samples pack after pack, and how many each has
        self.dropped: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.sums: Counter[str] = Counter()
        self.seconds = 0.0

    @property
    def samples(self) -> int:
        return len(self.columns["lengths"])

    def take(self, number: int, found: Any) -> None:
        """The samples of shard `number`."""
        for name in ("offsets", "sizes", "lengths"):
            self.columns[name].extend(getattr(found, name))
        self.columns["shards"].extend([number] * len(found.lengths))
        self.dropped += found.dropped
        self.examples = found.examples | self.examples
        for name in ("samples_in", "loss_tokens", "image_tokens"):
            self.sums[name] += getattr(found, name)

    def packs_of(self, function, *arguments) -> None:
        """Packs, and the time that packing took."""
        begin = time.process_time()  # the workers read while this process packs
        for pack in function(*arguments):
            self.order.extend(pack)
            self.counts.append(len(pack))
        self.seconds += time.process_time() - begin

    def totals(self, seq_length: int) -> dict[str, Any]:
        """Raises RuntimeError when a sample was lost between the shards and the packs."""
        packed, tokens = len(self.order), sum(self.columns["lengths"])
        if self.sums["samples_in"] != packed + self.dropped.total():
            raise RuntimeError(f"{self.sums['samples_in']} samples in, {packed} packed, {dict(self.dropped)} dropped")
        return {
            "samples_in": self.sums["samples_in"],
            "dropped": dict(sorted(self.dropped.items())),
            "samples": packed,
            "packs": len(self.counts),
            "tokens": tokens,
            "loss_tokens": self.sums["loss_tokens"],
            "image_tokens": self.sums["image_tokens"],
            "fill": tokens / (len(self.counts) * seq_length),
        }

    def arrays(self) -> dict[str, Any]:
        """The index's arrays: samples in the order of the packs."""
        import numpy as np

        arrays = {name: np.asarray(values)[np.asarray(self.order)] for name, values in self.columns.items()}
        return arrays | {"counts": np.asarray(self.counts)}

    def first_example(self) -> str:
        """One message, for an error."""
        return next(iter(self.examples.values()), "it holds none")


class _Progress:
    """A line every five seconds."""

    def __init__(self, shards: int, say) -> None:
        self.shards, self.say = shards, say
        self._begin = self._said = time.perf_counter()

    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._begin

    def __call__(self, done: int, samples: int) -> None:
        now = time.perf_counter()
        if now - self._said > 5 and done < self.shards:
            self._said = now
            left = self.seconds() / done * (self.shards - done)
            self.say(f"{done:,} of {self.shards:,} shards, {samples:,} samples, {left:,.0f} s left")


def describe(head: dict[str, Any], out: Path) -> list[str]:
    """The lines that the command prints."""
    totals, seconds = head["totals"], head["seconds"]
    packing = seconds["packing"] / max(totals["samples"], 1) * 1e6
    lines = [
        f"{totals['samples_in']:,} samples in {len(head['data']['shards']):,} shards: {totals['samples']:,} packed, "
        f"{sum(totals['dropped'].values()):,} dropped" + _reasons(totals["dropped"], " ({})"),
        *(f"  {reason}: {message}" for reason, message in sorted(head["examples"].items())),
        f"{totals['packs']:,} packs of {head['settings']['seq_length']:,} tokens, fill {totals['fill']:.2%}",
        f"{totals['tokens']:,} tokens an epoch: {totals['image_tokens']:,} of images, "
        f"{totals['loss_tokens']:,} to learn",
        f"read in {seconds['reading']:,.1f} s, packed in {seconds['packing']:,.2f} s ({packing:.1f} µs a sample)",
        f"{out} ({out.stat().st_size / 1e6:.2f} MB); train with data.pack_index={out} stage.epochs=1",
    ]
    return lines


def _reasons(dropped: dict[str, int], form: str = "{}") -> str:
    text = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))
    return form.format(text) if text else ""
