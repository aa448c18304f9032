"""The memory of an import does not grow with its source: measured in a process of its own."""

import json
import random
import subprocess
import sys

import pytest
from chatml import picture
from sources import chat, turns, write_json, write_parquet, write_tar

MEASURE = """
import json, re, sys
from pathlib import Path
from nemo_amalia.data.importing.folder import ImportFolder
from nemo_amalia.config.schema import DataConfig
from nemo_amalia.data.importing.command import ImportSettings, copy_records

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

def work(path, folder):
    folder = ImportFolder(Path(folder), {"max_image_pixels": DataConfig.max_image_pixels}, 8_000_000)
    copy_records(folder, [Path(path)], ImportSettings(form, "m", DataConfig.max_image_pixels, shard_megabytes=8))
    folder.close()

form, small, source, out = sys.argv[1:]
work(small, out + "/small")  # libraries and their buffers
before = peak()
work(source, out + "/big")
grown = peak() - before
data = Path(source).read_bytes()
print(json.dumps([grown, peak() - before]))
"""


def big_json(path, count):
    rows = [
        {"conversations": [turns(i, 0)[0], {"from": "gpt", "value": f"{i} " + "palavras " * 30000}]}
        for i in range(count)
    ]
    return write_json(path / f"{count}.json", rows)


def big_pictures(count):
    noise = random.Random(count)
    for index in range(count):
        jpeg = picture(40, 40, index)
        comment = b"".join(b"\xff\xfe\xff\xff" + noise.randbytes(65533).replace(b"\xff", b"\0") for _ in range(4))
        yield jpeg[:2] + comment + jpeg[2:]


def big_parquet(path, count):
    rows = [{"messages": chat(i), "images": [{"bytes": data}]} for i, data in enumerate(big_pictures(count))]
    return write_parquet(path / f"{count}.parquet", rows, row_group_size=10)


def big_tar(path, count):
    members = [
        (f"{i}.{s}", d)
        for i, data in enumerate(big_pictures(count))
        for s, d in (("jpg", data), ("txt", b"Foto %d." % i))
    ]
    return write_tar(path / f"{count}.tar", members)


@pytest.mark.parametrize(("form", "make"), [("llava", big_json), ("parquet", big_parquet), ("captions", big_tar)])
def test_memory_does_not_grow_with_the_source(tmp_path, form, make):
    source, small = make(tmp_path, 240), make(tmp_path, 12)
    words = [sys.executable, "-c", MEASURE, form, str(small), str(source), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (grown, whole), size = json.loads(done.stdout.splitlines()[-1]), source.stat().st_size
    assert grown < size / 3 < whole, f"{grown / 1e6:.0f} MB for {size / 1e6:.0f} MB; read whole it is {whole / 1e6:.0f}"
