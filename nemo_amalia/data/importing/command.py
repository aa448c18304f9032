"""``amalia data import FORMAT SOURCE... --out DIR``: other people's data -> our shards, a record at a time."""

from __future__ import annotations

import argparse
import errno
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemo_amalia.config.schema import DataConfig
from nemo_amalia.data.images.headers import check_max_pixels
from nemo_amalia.data.importing.folder import DROPPED, MANIFEST, ImportFolder
from nemo_amalia.data.importing.formats import captions, llava, parquet, preference
from nemo_amalia.data.importing.formats.records import REASONS, BadRecordError, Format, ReadOptions
from nemo_amalia.data.shards.write import KEY
from nemo_amalia.utils.errors import DataError

FORMATS: dict[str, Format] = {
    "llava": llava.FORMAT,
    "parquet": parquet.FORMAT,
    "captions": captions.FORMAT,
    "preference": preference.FORMAT,
}
MAX_BAD = 0.01  # a wrong --images or other field names spoil far more, the usual rot of a crawled source less
EARLY = 10_000  # records after which, and after each as many, the share of bad ones is looked at before the end


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """What decides the bytes of the shards, written to import.json. limit: records to read, 0 for all."""

    format: str
    source: str
    max_image_pixels: int
    language: str = ""
    images: str | None = None
    prompts: tuple[str, ...] = ()
    shard_megabytes: float = 500
    limit: int = 0

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise DataError(f"format {self.format!r} is not known: expected one of {', '.join(FORMATS)}")
        if not KEY.fullmatch(self.source) or len(self.source) > 60:
            raise DataError(f"--source {self.source!r} begins the keys: at most 60 letters, digits, - and _")
        if not self.shard_megabytes > 0:
            raise DataError(f"--shard-megabytes {self.shard_megabytes:g} must be positive, as in 500")
        if self.limit < 0:
            raise DataError(f"--limit {self.limit}: expected a number of records, or 0 for all")
        check_max_pixels(self.max_image_pixels, "--max-image-pixels")
        if self.images is not None and not Path(self.images).is_dir():
            raise DataError(f"--images {self.images} is no folder: give the one below which the pictures lie")
        if not all(prompt.strip() and "<image>" not in prompt for prompt in self.prompts):
            raise DataError("a --prompt is empty or has <image> in it: pictures are put before the question")


def import_sources(
    paths: list[Path],
    out: Path,
    settings: ImportSettings,
    on_bad: str = "drop",
    max_bad: float = MAX_BAD,
) -> dict[str, Any]:
    """Writes the records of `paths` to `out` and prepares it for Energon. Gives ImportFolder.counts().

    Killed and called again it goes on after the last finished shard, to the same bytes. on_bad "fail" stops at the
    first bad record; "drop" counts them, and stops once more than the share `max_bad` is bad. Repeated records are
    left out and counted, and are not bad. Raises DataError, also where no sample comes out.
    """
    if not 0 <= max_bad <= 1:
        raise DataError(f"--max-bad {max_bad} is a share of the records: expected 0 to 1")
    files = source_files(FORMATS[settings.format], paths)
    names = [[file.name, 0 if file.is_dir() else file.stat().st_size] for file in files]
    stored = {**asdict(settings), "prompts": list(settings.prompts), "files": names}
    folder = ImportFolder(out, stored, int(settings.shard_megabytes * 1_000_000))
    try:
        if folder.finished:
            print(f"{out} is already imported")
            return folder.counts()
        if folder.shards:
            print(f"going on after {folder.shards} shards, {folder.read:,} records read", flush=True)
        copy_records(folder, files, settings, on_bad, max_bad)
        counts = folder.counts()
        if not counts["out"]:
            raise DataError(
                f"no sample came out of {counts['in']:,} records ({_reasons(counts['dropped'])}): "
                f"see {folder.folder / DROPPED}{_remedy(counts['dropped'])}"
            )
        folder.finish()
        return counts
    finally:
        folder.close()


def copy_records(
    folder: ImportFolder, files: list[Path], settings: ImportSettings, on_bad: str = "drop", max_bad: float = MAX_BAD
) -> None:
    """The records after the folder's position -> its shards; no index yet. Raises DataError as import_sources."""
    form = FORMATS[settings.format]
    images = Path(settings.images) if settings.images else None
    options = ReadOptions(settings.max_image_pixels, images, settings.prompts)
    for index, number, row in _records(folder, form, files, settings.limit):
        file, key = files[index], f"{settings.source}-{index:05d}-{number:09d}"
        name = str(row["id"]) if isinstance(row, dict) and row.get("id") is not None else ""
        try:
            sample = form.convert(row, options.picture_folder(file), options)
            sample |= {"source": settings.source, "language": _language(row, settings.language)}
            if name:
                sample["id"] = name
            fault = None if _add(folder, key, sample) else ("duplicate", REASONS["duplicate"])
        except BadRecordError as error:
            if on_bad == "fail":
                where = f"record {number} of {file}" + (f" (id {name})" if name else "")
                raise DataError(f"{where} {error}: mend it, or leave it out with --on-bad drop") from error
            fault = (error.reason, str(error))
        if fault:
            folder.drop({"file": file.name, "record": number, "id": name}, *fault)
        folder.advance(index, number)
        if folder.read % EARLY == 0:
            _check_share(folder, max_bad)
    folder.close_shard()
    _check_share(folder, max_bad)


def _records(folder: ImportFolder, form: Format, files: list[Path], limit: int) -> Iterator[tuple[int, int, Any]]:
    """(index of the source file, number of the record in it, row) from the folder's position on."""
    first, skip, left = folder.source_file, folder.record, limit - folder.read if limit else None
    for index in range(first, len(files)):
        start = skip if index == first else 0
        for number, row in enumerate(form.rows(files[index], start), start):
            if left is not None and left <= 0:
                return
            yield index, number, row
            left = None if left is None else left - 1


def _add(folder: ImportFolder, key: str, sample: dict[str, Any]) -> bool:
    try:
        return folder.add(key, sample)
    except UnicodeEncodeError as error:
        raise BadRecordError("record", f"has text that is no Unicode ({error.reason})") from error


def _language(row: dict[str, Any], default: str) -> str:
    value = row.get("language")
    return value if isinstance(value, str) and value else default


def _check_share(folder: ImportFolder, max_bad: float) -> None:
    counts = folder.counts()
    reasons = {name: count for name, count in counts["dropped"].items() if name != "duplicate"}
    bad = sum(reasons.values())
    if bad > max_bad * folder.read:
        raise DataError(
            f"{bad:,} of {folder.read:,} records are bad ({_reasons(reasons)}), more than --max-bad {max_bad:g}: "
            f"see {folder.folder / DROPPED}{_remedy(reasons)}, then mend the source and choose another --out, "
            "or run the same command with a higher --max-bad"
        )


def _remedy(dropped: dict[str, int]) -> str:
    there = "missing_image" in dropped
    return "; --images names the folder where paths of pictures begin (default: beside the source)" if there else ""


def _reasons(dropped: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in dropped.items()) or "nothing dropped"


def source_files(form: Format, paths: list[Path]) -> list[Path]:
    """The files of all sources, in the order given. Raises DataError on one that is named twice."""
    files = [file for path in paths for file in form.find(path)]
    if len({file.resolve() for file in files}) < len(files):
        raise DataError("a source file is named twice: name each once; a blend's weights are the way to repeat data")
    return files


def report(counts: dict[str, Any], out: Path) -> str:
    """What is printed at the end."""
    dropped = sum(counts["dropped"].values())
    lines = [f"{counts['in']:,} records in = {counts['out']:,} samples out + {dropped:,} dropped"]
    lines += [f"  {name:14}{count:>9,}  {REASONS[name]}" for name, count in counts["dropped"].items()]
    size = f"{counts['images']:,} images, {counts['shards']:,} shards, {counts['bytes'] / 1e6:,.1f} MB"
    lines.append(f"{size} -> {out} ({MANIFEST}: checksums; {DROPPED}: which records, and why)")
    return "\n".join(lines)


def add_command(subparsers: Any) -> None:
    """`amalia data import`."""
    take = subparsers.add_parser(
        "import",
        help="LLaVA json, Hugging Face parquet, captions or preference pairs -> shards",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="\n".join(f"{name:12}{form.summary}" for name, form in FORMATS.items()),
    )
    take.add_argument("format", choices=FORMATS)
    take.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="a file, or a folder of files")
    take.add_argument("--out", type=Path, required=True, help="a new folder, or one that this command began")
    take.add_argument("--images", type=Path, help="where relative picture paths begin (default: beside the source)")
    take.add_argument("--source", help="name in keys and counts: letters, digits, - and _ (default: from SOURCE)")
    take.add_argument("--language", default="", help="of records that do not say, such as pt-PT")
    take.add_argument("--prompt", action="append", default=[], help="captions: a question; may be given several times")
    take.add_argument("--shard-megabytes", type=float, default=500, help="size of a shard, 10^6 bytes (default: 500)")
    take.add_argument("--limit", type=int, default=0, help="read only the first N records")
    take.add_argument(
        "--max-image-pixels", type=int, default=DataConfig.max_image_pixels, help="as data.max_image_pixels"
    )
    take.add_argument("--on-bad", choices=["drop", "fail"], default="drop", help="at a bad record (default: drop)")
    take.add_argument("--max-bad", type=float, default=MAX_BAD, help=f"share of bad records borne (default: {MAX_BAD})")
    take.set_defaults(run=run_import)


def run_import(arguments: argparse.Namespace) -> int:
    """amalia data import."""
    if arguments.prompt and arguments.format != "captions":
        raise DataError(f"--prompt is for captions: {arguments.format} brings its own questions")
    settings = ImportSettings(
        format=arguments.format,
        source=arguments.source or re.sub(r"[^A-Za-z0-9_\-]+", "-", arguments.sources[0].resolve().stem)[:60],
        language=arguments.language,
        images=str(arguments.images.absolute()) if arguments.images else None,
        prompts=tuple(arguments.prompt),
        shard_megabytes=arguments.shard_megabytes,
        limit=arguments.limit,
        max_image_pixels=arguments.max_image_pixels,
    )
    try:
        counts = import_sources(arguments.sources, arguments.out, settings, arguments.on_bad, arguments.max_bad)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST):
            raise
        raise DataError(
            f"cannot write to {arguments.out} ({error.strerror}): mend that and run the same command again, "
            "it goes on after the last finished shard"
        ) from error
    print(report(counts, arguments.out))
    return 0
