"""``python -m benchmarks.damage``: what 1 % of damaged images costs the others: samples, and time.

Two folders of shards, alike but for the damaged ones, which come in the twelve ways of damaged_images.py. Each is read
once a round by the loader that trains, in this process, at the paper's geometry (tiles of 384, at most 12).
"""

import argparse
import io
import json
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from benchmarks.damaged_images import damaged_images, write_raw
from benchmarks.images import MEAN, STD, TILE, jpegs
from benchmarks.measure import interleaved, table

TOKENIZER = Path(__file__).parents[1] / "demo" / "base" / "decoder"
SIZE, PHOTOGRAPHS, SHARE, ASKED = (640, 480), 48, 0.01, 0.97
PATCH, SEQ_LENGTH = 16, 16384


def photographs() -> list[bytes]:
    """A few, so that many samples are soon made: they are decoded again each time."""
    return jpegs(PHOTOGRAPHS, SIZE)


def damages(photograph: bytes) -> list[tuple[str, bytes]]:
    """The twelve ways, of one photograph."""

    def encoded(kind: str) -> bytes:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(photograph)).save(buffer, kind)
        return buffer.getvalue()

    return list(damaged_images(encoded).values())


def write_folders(folder: Path, number: int, seed: int) -> tuple[Path, Path, set[str]]:
    """(clean, damaged, keys of the damaged samples)."""
    pictures = photographs()
    ways = damages(pictures[0])
    messages = [
        {"role": "user", "content": "<image>O que se vê na imagem?"},
        {"role": "assistant", "content": "Uma fotografia."},
    ]
    text = json.dumps({"messages": messages, "source": "fotografias", "language": "pt-PT"}).encode()
    clean = {f"s-{i:06d}": (text, [("jpg", pictures[i % PHOTOGRAPHS])]) for i in range(number)}
    chosen = random.Random(seed).sample(sorted(clean), max(1, round(SHARE * number)))
    worse = clean | {key: (text, [ways[i % len(ways)]]) for i, key in enumerate(chosen)}
    return write_raw(folder / "clean", clean, 100), write_raw(folder / "damaged", worse, 100), set(chosen)


def reader(folder: Path, found: dict):
    """A function that reads the folder once, and leaves the counts in `found`."""
    from transformers import AutoTokenizer

    from benchmarks.corpus import stream
    from nemo_amalia.data.encoding.chat import ChatFormat
    from nemo_amalia.data.encoding.hf_folder import ModelFormat
    from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to
    from nemo_amalia.data.loading.energon_stream import build_loader

    chat = ChatFormat(AutoTokenizer.from_pretrained(TOKENIZER))
    form = ModelFormat(chat, ImageGeometry(TILE, PATCH, grids_up_to(12, TILE)), MEAN, STD)
    settings = replace(stream(num_workers=0, packing_buffer_size=100)[0], seq_length=SEQ_LENGTH)

    def read() -> None:
        loader = build_loader(folder, settings, form)
        keys = [key.rpartition("/")[2] for batch in loader for key in batch.keys]
        loader.close()
        named = {fault.key.rpartition("/")[2] for fault in loader.faults.log()}
        found.update(keys=keys, named=named, totals=loader.faults.totals(), dropped=loader.faults.dropped())

    return read


def main() -> None:
    """Prints samples in, out, dropped, named and lost, CPU-ms a sample that came out, and the ratio of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="which samples are damaged")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        clean, damaged, chosen = write_folders(Path(temporary), arguments.samples, arguments.seed)
        found: dict[str, dict] = {"clean": {}, "damaged": {}}
        runs = {"clean": reader(clean, found["clean"]), "damaged": reader(damaged, found["damaged"])}
        seconds = interleaved(runs, arguments.rounds)
    rows, each = [], {}
    for name, result in found.items():
        out, bad = set(result["keys"]), chosen if name == "damaged" else set()
        lost = arguments.samples - len(bad) - len(out - bad) + len(bad - result["named"])  # sound, or not named
        each[name] = 1e3 * seconds[name] / len(result["keys"])
        counts = (result["totals"]["samples_in"], len(result["keys"]), sum(result["dropped"].values()))
        rows.append((name, *(f"{n:,}" for n in (*counts, len(result["named"]), lost)), f"{each[name]:.2f}"))
    print(table(("640x480 photographs", "in", "out", "dropped", "named", "lost", "CPU-ms a sample out"), rows))
    ratio = each["clean"] / each["damaged"]
    print(f"throughput of what is sound: {ratio:.3f} of that of the clean folder (asked: at least {ASKED})")
    print(f"medians of {arguments.rounds} rounds; {len(chosen)} of {arguments.samples:,} samples damaged")


if __name__ == "__main__":
    main()
