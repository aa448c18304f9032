"""Files as the world writes them, made with pyarrow and tarfile, for the tests of importing."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from chatml import picture


def write_json(path: Path, records: list, lines: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(r) for r in records) + "\n" if lines else json.dumps(records)
    path.write_text(text, encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict], row_group_size: int = 3) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return path


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def turns(index: int, images: int = 1) -> list[dict]:
    """LLaVA's form."""
    return [
        {"from": "human", "value": "<image>\n" * images + f"O que é isto, {index}?"},
        {"from": "gpt", "value": f"É a fotografia número {index}."},
    ]


def chat(index: int, images: int = 1) -> list[dict]:
    """Hugging Face's form, content in parts."""
    parts = [{"type": "image", "text": None}] * images + [{"type": "text", "text": f"O que é isto, {index}?"}]
    answer = [{"type": "text", "text": f"É a fotografia número {index}."}]
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]


def llava_source(folder: Path, count: int, lines: bool = False) -> Path:
    """A LLaVA file with every third record of text alone, its pictures in folder/fotos."""
    (folder / "fotos").mkdir(parents=True)
    records = []
    for index in range(count):
        record = {"id": f"coco/{index}", "conversations": turns(index, 1 if index % 3 else 0)}
        if index % 3:
            (folder / "fotos" / f"{index}.jpg").write_bytes(picture(60, 40, index))
            record["image"] = f"{index}.jpg"
        records.append(record)
    return write_json(folder / ("mix.jsonl" if lines else "mix.json"), records, lines)
