"""`amalia data view`: shards as a page, so that a wrong chat template is found before it is trained."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_amalia.config.schema import PACK_LENGTH, SAMPLE_KINDS, DataConfig, RunConfig
from nemo_amalia.data.images.headers import check_max_pixels
from nemo_amalia.data.settings import StreamSettings
from nemo_amalia.utils.errors import ConfigError

if TYPE_CHECKING:
    from nemo_amalia.data.view.page import View
    from nemo_amalia.data.view.read import Seen
    from nemo_amalia.data.view.template_checks import Finding


def add_command(subparsers: argparse._SubParsersAction) -> None:
    """amalia data view SOURCE --assets HF_FOLDER --out page.html"""
    view = subparsers.add_parser(
        "view", help="a page that shows samples, tiles, loss mask and packs, and what looks wrong"
    )
    view.add_argument("source", help="a folder of prepared shards, or a metadataset .yaml")
    view.add_argument("--assets", type=Path, required=True, help="a LLaVA-NeXT folder, or a checkpoint's hf folder")
    view.add_argument("--out", type=Path, required=True, help="the .html file to write")
    view.add_argument("--samples", type=_positive, default=24, help="samples to show (24)")
    view.add_argument("--read", type=_positive, default=500, help="samples to check, count and pack (500: one buffer)")
    view.add_argument("--seq-length", type=_positive, default=PACK_LENGTH, help="tokens of a pack (16384)")
    view.add_argument("--packing-algorithm", default=DataConfig.packing_algorithm, help="as data.packing_algorithm")
    view.add_argument("--no-tiling", action="store_true", help="thumbnails alone, as in stage 1")
    view.add_argument(
        "--max-image-pixels", type=int, default=DataConfig.max_image_pixels, help="as data.max_image_pixels"
    )
    view.add_argument("--seed", type=int, default=RunConfig.seed, help="which samples come")
    view.set_defaults(run=run)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a number of 1 or more")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Write the page. Raises ConfigError on a source, assets or output file that cannot be used."""
    from nemo_amalia.data.packing.algorithms import ALGORITHMS
    from nemo_amalia.data.view.page import page, verdict

    if arguments.packing_algorithm not in ALGORITHMS:
        names = ", ".join(ALGORITHMS)
        raise ConfigError(f"--packing-algorithm is {arguments.packing_algorithm!r}: expected one of {names}")
    check_max_pixels(arguments.max_image_pixels, "--max-image-pixels")
    settings = StreamSettings(
        data=DataConfig(
            path=arguments.source,
            packing_algorithm=arguments.packing_algorithm,
            max_image_pixels=arguments.max_image_pixels,
        ),
        sample_kind=SAMPLE_KINDS[0],  # of a pair the chosen answer is shown
        seq_length=arguments.seq_length,
        micro_batch_size=1,
        tiling=not arguments.no_tiling,
        packing=True,
        segment_multiple=1,
        seed=arguments.seed,
    )
    made = make_view(arguments.source, arguments.assets, settings, samples=arguments.samples, number=arguments.read)
    try:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(page(made), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {arguments.out} cannot be written ({error.strerror}): choose another file") from error
    again = f" ({made.again:,} draws gave a sample again)" if made.again else ""
    print(f"{len(made.seen):,} samples read = {len(made.usable):,} usable + {len(made.faulty):,} refused{again}")
    pairs = sum(one.pair for one in made.seen)
    if pairs:
        print(f"{pairs:,} of them are preference pairs: the chosen answers are checked, packed and shown")
    for finding in made.findings:
        if finding.level != "fine":
            print(f"{finding.level}: {finding.text}")
    print(f"{verdict(made.findings)[0]}; {len(made.shown)} samples shown: {arguments.out.resolve().as_uri()}")
    return 0


def make_view(source: str, folder: Path, settings: StreamSettings, *, samples: int, number: int) -> View:
    """Read `number` samples, check them all, draw `samples` of them. Raises ConfigError as `run`."""
    from nemo_amalia.data.encoding.encoders import encoder_of
    from nemo_amalia.data.encoding.hf_folder import read_assets
    from nemo_amalia.data.samples import BadSampleError
    from nemo_amalia.data.view.checks import findings
    from nemo_amalia.data.view.page import View
    from nemo_amalia.data.view.pictures import Album
    from nemo_amalia.data.view.read import make_packs, read

    assets = read_assets(folder)
    encoder = encoder_of(assets.chat, assets.geometry, settings)
    seen, again = read(source, encoder, number, settings.seed)
    found = findings(seen, assets)
    album, shown, refused = Album(assets, settings.data.max_image_pixels), [], False
    for one in in_turn(seen, found):
        if len(shown) == samples:
            break
        try:
            shown.append((one, album.draw(one)))
        except BadSampleError as error:  # its header was fine: training finds out when it decodes the pack
            one.refuse(error)
            refused = True
    if refused:
        found = findings(seen, assets)
    usable = [one.tokens for one in seen if one.tokens is not None]
    return View(
        source=source,
        assets=assets,
        seen=seen,
        shown=shown,
        findings=found,
        packs=make_packs(usable, settings.seq_length, settings.data.packing_algorithm, settings.seed),
        capacity=settings.seq_length,
        algorithm=settings.data.packing_algorithm,
        left_out=album.left_out,
        again=again,
    )


def in_turn(seen: list[Seen], found: list[Finding]) -> list[Seen]:
    """The usable samples: one of each finding in turn, then one of each folder, source and language in turn."""
    by_key = {one.key: one for one in seen if one.tokens is not None}
    flagged = [[by_key[key] for key in f.keys if key in by_key] for f in found if f.level != "fine"]
    kinds: dict[tuple, list[Seen]] = {}
    for one in by_key.values():
        kinds.setdefault((one.folder, one.conversation.source, one.conversation.language), []).append(one)
    order = [
        one for groups in (flagged, kinds.values()) for row in itertools.zip_longest(*groups) for one in row if one
    ]
    return list({id(one): one for one in order}.values())
