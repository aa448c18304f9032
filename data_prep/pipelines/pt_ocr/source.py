"""Where documents are from: an annotated OCR data set (images with their text, or text alone), or the built-in corpus.

A record is {"documents": [...], "spare": [...], "source", "licence"}; a document {"id", "text", "sentences", "title",
"image"}. sentences: None where nobody can say how many there are. image: bytes, None where the text is to be rendered.
spare: sentences of other texts, for wrong transcriptions.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from data_prep.pipelines.pt_ocr import corpus
from data_prep.pipelines.pt_ocr.slots import Slots
from data_prep.rendering.wrap import normalise
from data_prep.seeds import choices, how_many
from data_prep.text.sentences import sentences
from nemo_amalia.utils.errors import ConfigError

Sample = dict[str, Any]
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


def built_in(*, samples: int, seed: int, together: Sequence[float], document: Mapping[str, Any]) -> Iterator[Sample]:
    """Records of corpus.txt, each by (seed, its number) alone. together: weights of 1, 2, ... documents."""
    for number in range(samples):
        rng = choices(seed, "documents", number)
        documents = [corpus.document(rng, **document) | {"image": None} for _ in range(how_many(rng, together))]
        names = ", ".join(d["id"] for d in documents)
        yield {
            "documents": documents,
            "spare": _spare(rng),
            "source": f"data_prep/pipelines/pt_ocr/corpus.txt: {names}",
            "licence": corpus.LICENCE,
        }


def _spare(rng: Random) -> list[str]:
    slots = Slots(rng)
    return [slots.fill(rng.choice(p.lines)) for p in rng.sample([p for p in corpus.passages() if not p.rows], 5)]


def annotated(
    *, path: str, licence: str | None, samples: int | None, seed: int, together: Sequence[float]
) -> Iterator[Sample]:
    """Records of an annotated data set: a folder of NAME.txt files with or without NAME.jpg beside them, or .parquet
    files with the columns `text` and, where there are images, `image` (bytes, or {"bytes", "path"}).

    samples: None for one pass; more than a pass gives take the same documents again, with other questions.
    Neighbours in the data set are put together. Raises ConfigError on a path without such files, and without a licence.
    """
    if not licence:
        raise ConfigError(f"the texts in {path} have no licence: give seed_data.licence=NAME, as in CC-BY-4.0")
    read = _reader(Path(path))
    recent: deque[str] = deque(maxlen=20)
    number = 0
    for again in itertools.count():
        found = read()
        while samples is None or number < samples:
            rng = choices(seed, "documents", again, number)
            documents = list(itertools.islice(found, how_many(rng, together)))
            if not documents:
                break
            yield {
                "documents": documents,
                "spare": list(recent),
                "source": f"{Path(path).name}: {', '.join(d['id'] for d in documents)}",
                "licence": licence,
            }
            recent.extend(s for d in documents for s in sentences(d["text"])[:3])
            number += 1
        if samples is None or number >= samples or not number:
            return


def annotated_document(name: str, text: str, image: bytes | None) -> dict[str, Any]:
    """A document of somebody's data set; its sentences where its text is plain prose."""
    text = normalise(text)
    return {"id": name, "text": text, "sentences": prose_sentences(text), "title": "", "image": image}


def prose_sentences(text: str) -> list[str] | None:
    """The sentences of a text whose every paragraph is prose (one row, closed by a full stop, say), else None."""
    blocks = text.split("\n\n")
    closed = all(block.rstrip("»”’\"')]")[-1:] in (".", "!", "?", "…") and "\n" not in block for block in blocks)
    return [s for block in blocks for s in sentences(block)] if text and closed else None


def _reader(path: Path) -> Callable[[], Iterator[dict[str, Any]]]:
    if path.is_dir() and (texts := sorted(path.rglob("*.txt"))):
        return lambda: (_of_folder(text, path) for text in texts)
    tables = sorted(path.rglob("*.parquet")) if path.is_dir() else [path] if path.suffix == ".parquet" else []
    if not tables or not all(table.is_file() for table in tables):
        raise ConfigError(f"{path} has no .txt and no .parquet files: give seed_data.path=FOLDER, or null")
    return lambda: itertools.chain.from_iterable(_of_table(table) for table in tables)


def _of_folder(text: Path, root: Path) -> dict[str, Any]:
    try:
        content = text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{text} is not UTF-8 ({error.reason}): convert it, or move it away") from error
    image = next((text.with_suffix(s) for s in IMAGES if text.with_suffix(s).is_file()), None)
    return annotated_document(str(text.relative_to(root)), content, image.read_bytes() if image else None)


def _of_table(table: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(table) as file:
        columns = [name for name in ("text", "image") if name in file.schema_arrow.names]
        if "text" not in columns:
            raise ConfigError(
                f"{table} has the columns {', '.join(file.schema_arrow.names)}: expected text, and image if any"
            )
        row = 0
        for batch in file.iter_batches(batch_size=16, columns=columns):
            for record in batch.to_pylist():
                image = record.get("image")
                image = image.get("bytes") if isinstance(image, dict) else image
                yield annotated_document(f"{table.stem}/{row}", record["text"] or "", image)
                row += 1
