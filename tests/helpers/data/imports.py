"""Helpers of the import tests: one small source of each format, an import of it, and what it wrote."""

from chatml import picture
from sources import chat, llava_source, write_parquet, write_tar
from stream_settings import PIXELS

from nemo_amalia.data.importing.command import ImportSettings, import_sources
from nemo_amalia.data.shards.totals import FILE as TOTALS


def run(form, path, out, on_bad="drop", max_bad=0.01, **settings):
    defaults = {"source": "teste", "shard_megabytes": 0.02, "max_image_pixels": PIXELS}
    return import_sources([path], out, ImportSettings(form, **(defaults | settings)), on_bad, max_bad)


def content(folder):
    """Bytes of everything that an import wrote itself; Energon's index has a random name in it."""
    found = [*folder.iterdir(), folder / TOTALS]
    return {path.name: path.read_bytes() for path in sorted(found) if path.is_file()}


def caption_tar(folder):
    members = [
        (f"{i}.{s}", picture(40, 30, i) if s == "jpg" else f"Foto {i}.".encode())
        for i in range(9)
        for s in ("jpg", "txt")
    ]
    return write_tar(folder / "fotos.tar", members)


SOURCES = {
    "llava": lambda folder: llava_source(folder / "llava", 9),
    "parquet": lambda folder: write_parquet(
        folder / "a.parquet", [{"messages": chat(i), "images": [{"bytes": picture(50, 40, i)}]} for i in range(9)]
    ),
    "captions": caption_tar,
}
