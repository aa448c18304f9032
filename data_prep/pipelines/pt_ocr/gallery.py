"""python -m data_prep.pipelines.pt_ocr.gallery OUT.png [fonts=carried] [first=0]: the figure of the PT-OCR page."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from random import Random
from typing import Any

from data_prep.config import settings
from data_prep.pipelines.pt_ocr.samples import make_sample
from data_prep.pipelines.pt_ocr.source import built_in
from data_prep.pipelines.pt_ocr.verify import fault
from data_prep.rendering.gallery import write_gallery


def varied(number: int, fonts: str, first: int) -> Iterator[dict[str, Any]]:
    """Samples that differ in task, format and arrangement, all of them verified; from record `first` on."""
    values = settings("pt_ocr")
    records = built_in(samples=10_000, seed=0, together=values["together"], document=values["document"])
    seen: set[tuple[str, ...]] = set()
    for index, record in enumerate(itertools.islice(records, first, None)):
        sample = make_sample(
            record, Random(f"gallery/{index}"), values["pictures"] | {"fonts": fonts}, values["asking"]
        )
        turns = sample["record"]["turns"]
        about = {(t["task"], t["format"]) for t in turns} | {("shown", sample["record"]["arrangement"])}
        short = max(len(page["lines"]) for page in sample["record"]["pages"]) <= 22 and len(turns) < 3
        if short and len(about - seen) >= min(2, len(about)) and fault(sample) is None:
            seen |= about
            yield sample
            number -= 1
            if not number:
                return


def main(words: list[str]) -> None:
    """Writes the picture and says how large it is."""
    options = {"fonts": "carried", "first": "0"} | dict(word.split("=", 1) for word in words[1:])
    samples = list(varied(12, options["fonts"], int(options["first"])))
    size = write_gallery(samples, words[0], columns=4, card=400, image_height=330, lines=7, size=13)
    print(f"{len(samples)} samples, {size:,} bytes -> {words[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
