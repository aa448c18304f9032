"""`amalia data pack`: every shard is read once, in order, for lengths alone; the packs become a small file.

No pixel is decoded or moved. Training with `data.pack_index` then knows its packs before it starts: exact epochs, exact
totals, and packs that are filled better than a buffer of some hundred samples can fill them.
"""

from __future__ import annotations

import argparse
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemo_amalia.data.encoding.encoders import SampleEncoder
    from nemo_amalia.data.shards.metadataset import RepeatedFolder

from nemo_amalia.config.schema import PACK_LENGTH, SAMPLE_KINDS, DataConfig, RunConfig, StageConfig
from nemo_amalia.data.images.headers import check_max_pixels
from nemo_amalia.data.settings import StreamSettings
from nemo_amalia.utils.errors import DataError

HELP = "lengths -> an index of packs: exact epochs, fuller packs, a position that any layout can resume"


def add_command(subparsers: argparse._SubParsersAction) -> None:
    """amalia data pack SOURCE --assets HF_FOLDER --out INDEX"""
    pack = subparsers.add_parser("pack", help=HELP, description=HELP)
    pack.add_argument("source", type=Path, help="a folder of prepared shards, or a .yaml with blend_epochized")
    pack.add_argument("--assets", type=Path, required=True, help="a LLaVA-NeXT folder, or a checkpoint's hf folder")
    pack.add_argument("--out", type=Path, required=True, help="the index to write; must not be there yet")
    pack.add_argument(
        "--sample-kind", choices=SAMPLE_KINDS, default=SAMPLE_KINDS[0], help="preferences: pairs, of stage dpo"
    )
    pack.add_argument("--seq-length", type=int, default=PACK_LENGTH, help="tokens of a pack (stage.seq_length)")
    pack.add_argument("--segment-multiple", type=int, default=1, help="2 x parallel.context where that is over 1")
    pack.add_argument(
        "--tiling", action=argparse.BooleanOptionalAction, default=StageConfig.tiling, help="as stage.tiling"
    )
    pack.add_argument(
        "--max-image-pixels", type=int, default=DataConfig.max_image_pixels, help="as data.max_image_pixels"
    )
    pack.add_argument("--window", type=int, default=4000, help="samples that lie together, packed together")
    pack.add_argument("--algorithm", default="best_fit_decreasing", help="or balanced: every pack a mix of lengths")
    pack.add_argument("--workers", type=int, default=2, help="processes that read shards; 0: this one")
    pack.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the index and say what is in it. Raises DataError on what cannot be packed."""
    check_max_pixels(arguments.max_image_pixels, "--max-image-pixels")
    settings = StreamSettings(
        data=DataConfig(path=str(arguments.source), max_image_pixels=arguments.max_image_pixels),
        sample_kind=arguments.sample_kind,
        seq_length=arguments.seq_length,
        micro_batch_size=1,
        tiling=arguments.tiling,
        packing=True,
        segment_multiple=arguments.segment_multiple,
        seed=RunConfig.seed,
    )
    head = make_index(
        arguments.source,
        arguments.assets,
        arguments.out,
        settings,
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
    settings: StreamSettings,
    *,
    window: int = 4000,
    algorithm: str = "best_fit_decreasing",
    workers: int = 0,
    say=lambda line: None,
) -> dict[str, Any]:
    """Write the index and return its head. Nothing is written before the end, and then whole or not at all.

    Raises:
        DataError: a source, assets or settings that do not work, or no sample that is left.
    """
    from nemo_amalia.data.encoding.encoders import encoder_of
    from nemo_amalia.data.encoding.hf_folder import read_assets
    from nemo_amalia.data.packing.index import identity_of, settings_of, write_index
    from nemo_amalia.data.packing.windows import WindowPacker
    from nemo_amalia.data.shards.metadataset import read_sources

    seq_length, segment_multiple = settings.seq_length, settings.segment_multiple
    _check(seq_length, segment_multiple, workers, out)
    packer = WindowPacker(seq_length, segment_multiple, window, algorithm)
    sources = read_sources(source, "SOURCE")
    identity = identity_of(source, sources)  # before the shards are read: one prepared meanwhile is another
    hf = read_assets(assets)
    book, shards, seconds = _read(sources, encoder_of(hf.chat, hf.geometry, settings), workers, say)
    data = {"identity": identity["identity"], "folder": Path(source).absolute().name, "shards": shards}
    if "sources" not in identity:
        book.pack(packer)
    else:
        book.pack_epoch(packer, [source.repetitions for source in sources])
        data["sources"] = book.of_sources(identity["sources"])
    if not book.counts:
        raise DataError(f"no sample of {source} can be trained on: {_reasons(book.reasons())}; {book.first_example()}")
    return write_index(
        out,
        {
            "settings": settings_of(hf.chat, hf.geometry, settings),
            "data": data,
            "totals": book.totals(seq_length),
            "examples": book.examples,
            "window": packer.window,
            "algorithm": algorithm,
            "seconds": {"reading": round(seconds, 1), "packing": round(book.seconds, 3)},
        },
        book.arrays(),
    )


def _read(sources: list[RepeatedFolder], encoder: SampleEncoder, workers: int, say) -> tuple[Any, ...]:
    """(what every shard of every source holds, the names of the shards, seconds)."""
    from nemo_amalia.data.packing.book import Book
    from nemo_amalia.data.packing.measure import measure_shards
    from nemo_amalia.data.shards.read import training_shards

    jobs, source_of = [], []
    for number, source in enumerate(sources):
        names, excluded = training_shards(source.folder)
        jobs += [(source.folder, name, excluded) for name in names]
        source_of += [number] * len(names)
    book, progress = Book(len(sources)), _Progress(len(jobs), say)
    for number, found in enumerate(measure_shards(jobs, encoder, workers)):
        book.take(number, source_of[number], found)
        progress(number + 1, book.samples)
    return book, [name for _, name, _ in jobs], progress.seconds()


def _check(seq_length: int, segment_multiple: int, workers: int, out: Path) -> None:
    if out.exists():
        raise DataError(f"{out} is there already: choose another name, or remove it")
    if segment_multiple < 1 or seq_length < 1 or seq_length % segment_multiple:
        raise DataError(
            f"--seq-length {seq_length} is not a multiple of --segment-multiple {segment_multiple}: "
            "take 2 x parallel.context, or 1 without context parallelism"
        )
    if workers < 0:
        raise DataError(f"--workers is {workers}: give 0 (read here) or more")


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
    sources = head["data"].get("sources")
    dropped = f"{sum(totals['dropped'].values()):,} dropped" + _reasons(totals["dropped"], " ({})")
    what = "pairs" if head["settings"]["sample_kind"] == "preferences" else "samples"
    read = f"{totals['samples_in']:,} {what} in {len(head['data']['shards']):,} shards"
    lines = [
        f"{read} of {len(sources)} sources: {totals['samples']:,} packed an epoch, {dropped}"
        if sources
        else f"{read}: {totals['samples']:,} packed, {dropped}",
        *_of_sources(sources or [], totals.get("repeated_in_a_pack", 0)),
        *(f"  {reason}: {message}" for reason, message in sorted(head["examples"].items())),
        f"{totals['packs']:,} packs of {head['settings']['seq_length']:,} tokens, fill {totals['fill']:.2%}",
        f"{totals['tokens']:,} tokens an epoch: {totals['image_tokens']:,} of images, "
        f"{totals['loss_tokens']:,} to learn",
        f"read in {seconds['reading']:,.1f} s, packed in {seconds['packing']:,.2f} s ({packing:.1f} µs a {what[:-1]})",
        f"{out} ({out.stat().st_size / 1e6:.2f} MB); train with data.pack_index={out} stage.epochs=1",
    ]
    return lines


def _of_sources(sources: list[dict[str, Any]], repeated: int) -> list[str]:
    """A line each: samples that can be packed, their repetitions, samples of an epoch, and what was dropped."""
    width = max((len(source["name"]) for source in sources), default=0)
    lines = [
        f"  {source['name']:<{width}}  {source['samples_in'] - sum(source['dropped'].values()):>9,} x "
        f"{float(Fraction(source['repetitions'])):<5g} = {source['samples']:>9,}"
        + _reasons(source["dropped"], "  dropped: {}")
        for source in sources
    ]
    return lines + ([f"{repeated:,} samples share a pack with their own repetition"] if repeated else [])


def _reasons(dropped: dict[str, int], form: str = "{}") -> str:
    text = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))
    return form.format(text) if text else ""
