"""python -m data_prep.common.shard_gallery OUT.png FOLDER ... [each=3] [columns=4]: samples of finished data sets as a
picture, pictures that differ first (of the samples of one picture, the first).
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def samples_of(folder: str | Path) -> Iterator[dict[str, Any]]:
    """{"key", "messages", "images", "language"} of every sample in a folder of shards, in order.

    Raises ValueError on a folder without shards.
    """
    shards = sorted(Path(folder).glob("*.tar"))
    if not shards:
        raise ValueError(f"{folder} holds no .tar shard: give the folder that `amalia-data NAME run` wrote")
    for shard in shards:
        found: dict[str, dict[str, Any]] = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                data = tar.extractfile(member).read()
                if suffix == "json":
                    found[key] = {"key": key, "images": []} | json.loads(data)
                else:
                    found[key]["images"].append(data)
        yield from found.values()


def chosen(folder: str | Path, number: int) -> list[dict[str, Any]]:
    """Samples of a folder, evenly spread over it, none with the picture of another."""
    samples = list({b"".join(sample["images"]): sample for sample in samples_of(folder)}.values())
    step = max(1, len(samples) // number)
    return samples[::step][:number]


def main(words: list[str]) -> None:
    """Writes the picture and says how large it is."""
    from data_prep.common.gallery import write_gallery

    options = {"each": 3, "columns": 4} | {k: int(v) for k, v in (w.split("=") for w in words[1:] if "=" in w)}
    samples = [sample for word in words[1:] if "=" not in word for sample in chosen(word, options["each"])]
    size = write_gallery(samples, words[0], columns=options["columns"], card=400, image_height=330, lines=24, size=13)
    print(f"{len(samples)} samples, {size:,} bytes -> {words[0]}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
