"""From a source to shards that the loader reads: counts, restarts after kill -9, bounded memory, checksums."""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tarfile
import time

import pytest
from chatml import picture
from sources import chat, llava_source, turns, write_json, write_parquet, write_tar

from nemo_amalia import cli
from nemo_amalia.data import import_folder
from nemo_amalia.data.cookers import cook_conversation
from nemo_amalia.data.import_folder import ImportFolder, manifest
from nemo_amalia.data.import_sources import ImportSettings, import_sources
from nemo_amalia.data.loader import build_loader
from nemo_amalia.data.shards import check_folder
from nemo_amalia.data.totals import FILE as TOTALS

FORK = multiprocessing.get_context("fork")


def run(form, path, out, on_bad="drop", max_bad=0.01, **settings):
    defaults = {"source": "teste", "shard_megabytes": 0.02}
    return import_sources([path], out, ImportSettings(form, **(defaults | settings)), on_bad, max_bad)


def content(folder):
    """Bytes of everything that an import wrote itself; Energon's index has a random name in it."""
    found = [*folder.iterdir(), folder / TOTALS]
    return {path.name: path.read_bytes() for path in sorted(found) if path.is_file()}


def records(folder):
    """Raw WebDataset records of all shards, by key."""
    out = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, name = member.name.partition(".")
                out.setdefault(key, {"__key__": key})[name] = tar.extractfile(member).read()
    return out


@pytest.fixture
def load(chat, geometry):
    opened = []

    def build(folder):
        statistics = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "num_workers": 0, "packing_buffer_size": 8}
        opened.append(build_loader(folder, chat=chat, geometry=geometry, seq_length=512, repeat=False, **statistics))
        return opened[-1]

    yield build
    for loader in opened:
        loader.close()


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


@pytest.mark.parametrize("form", SOURCES)
def test_what_was_imported_is_what_the_loader_gives(tmp_path, load, form):
    images = {"images": str(tmp_path / "llava" / "fotos")} if form == "llava" else {}
    counts = run(form, SOURCES[form](tmp_path), tmp_path / "out", language="pt-PT", **images)
    assert (counts["in"], counts["out"], counts["dropped"]) == (9, 9, {})
    loader = load(tmp_path / "out")
    keys = sorted(key.rsplit("/", 1)[-1] for batch in loader for key in batch.keys)
    assert keys == [f"teste-00000-{i:09d}" for i in range(9)] and not loader.faults.dropped()
    cooked = [cook_conversation(record) for record in records(tmp_path / "out").values()]
    assert sum(len(sample.images) for sample in cooked) == counts["images"] == (6 if form == "llava" else 9)
    assert {(sample.source, sample.language) for sample in cooked} == {("teste", "pt-PT")}


def test_preference_pairs_keep_prompt_chosen_and_rejected(tmp_path):
    rows = [
        {
            "prompt": chat(i)[:1],
            "chosen": chat(i)[1:],
            "rejected": chat(i + 50)[1:],
            "language": "pt-BR",
            "images": [{"bytes": picture(50, 40, i)}],
        }
        for i in range(4)
    ]
    run("preference", write_parquet(tmp_path / "p.parquet", rows), tmp_path / "out")
    stored = records(tmp_path / "out")
    for index, (key, record) in enumerate(stored.items()):
        sample, raw = cook_conversation(record), json.loads(record["json"])
        assert (key, sample.language) == (f"teste-00000-{index:09d}", "pt-BR")
        assert [m["role"] for m in sample.messages] == ["user"] and len(sample.images) == 1
        assert raw["chosen"] == chat(index)[1:] and raw["rejected"] == chat(index + 50)[1:]
    assert index == 3


def test_in_is_out_and_drops_and_each_drop_is_written_down(tmp_path):
    rows = [{"id": f"r{i}", "conversations": turns(i, 0)} for i in range(20)]
    rows[3]["image"] = "falta.jpg"
    rows[7]["conversations"] = turns(7, 0)[:1]
    rows[8]["conversations"][1]["value"] = "\ud83d só meio"  # half a character: no Unicode
    rows[11]["conversations"] = rows[10]["conversations"]
    source = write_json(tmp_path / "m.jsonl", rows, lines=True)
    counts = run("llava", source, tmp_path / "out", max_bad=0.15)
    assert counts["dropped"] == {"duplicate": 1, "missing_image": 1, "no_answer": 1, "record": 1}
    assert counts["in"] == 20 == counts["out"] + sum(counts["dropped"].values())
    log = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert [(d["record"], d["id"], d["reason"]) for d in log] == [
        (3, "r3", "missing_image"),
        (7, "r7", "no_answer"),
        (8, "r8", "record"),
        (11, "r11", "duplicate"),
    ]
    assert "falta.jpg" in log[0]["message"]
    lines = manifest(tmp_path / "out")
    assert sum(line["samples"] for line in lines) == counts["out"] and lines[-1]["read"] == 20
    assert json.loads((tmp_path / "out" / "counts.json").read_text()) == counts
    assert json.loads(next(iter(records(tmp_path / "out").values()))["json"])["id"] == "r0"
    assert run("llava", source, tmp_path / "out") == counts  # a finished one is left alone


def test_too_many_bad_records_stop_the_import_until_they_are_allowed(tmp_path):
    rows = [{"conversations": turns(i, 0)} for i in range(10)] + [{"conversations": turns(10, 1)}]
    source = write_json(tmp_path / "m.json", rows)
    with pytest.raises(
        ValueError, match=r"1 of 11 records are bad \(placeholders 1\), more than --max-bad 0.01"
    ) as info:
        run("llava", source, tmp_path / "out")
    assert "\n" not in str(info.value)
    with pytest.raises(ValueError, match="has not ended: run the same `amalia data import` again"):
        check_folder(tmp_path / "out")
    assert run("llava", source, tmp_path / "out", max_bad=0.1)["out"] == 10
    assert check_folder(tmp_path / "out")
    with pytest.raises(ValueError, match=r"record 10 of .*m.json has 1 <image> placeholders and 0 pictures"):
        run("llava", source, tmp_path / "b", on_bad="fail")
    with pytest.raises(ValueError, match="no sample came out of 1 records .placeholders 1"):
        run("llava", write_json(tmp_path / "n.json", rows[-1:]), tmp_path / "c", max_bad=1)


def test_a_limit_counts_records_read(tmp_path):
    counts = run("llava", llava_source(tmp_path / "s", 9), tmp_path / "out", limit=4, max_bad=1)
    assert (counts["in"], counts["dropped"]) == (4, {"missing_image": 2})  # without --images


def several(folder):
    """Three LLaVA files of 150 records; bad and repeated ones among them, also where shards are cut."""
    folder.mkdir()
    for part in range(3):
        rows = [{"id": i, "conversations": turns(part * 150 + i, 0)} for i in range(150)]
        for i in range(part, 150, 4):
            rows[i]["conversations"] = turns(i, 1) if i % 8 else turns(i // 3, 0)
        write_json(folder / f"{part}.json", rows)
    return folder


def killed(source, out, shards, delay, **settings):
    """Starts an import in a process and kills it, with SIGKILL, once there are so many shards."""
    process = FORK.Process(target=run, args=("llava", source, out), kwargs=settings)
    process.start()
    limit = time.monotonic() + 60
    while len(manifest(out)) < shards and time.monotonic() < limit:
        time.sleep(0.0005)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL and not (out / "counts.json").is_file()


def test_killed_and_started_again_gives_the_same_bytes(tmp_path):
    source, settings = several(tmp_path / "s"), {"max_bad": 1, "shard_megabytes": 0.015}
    counts = run("llava", source, tmp_path / "whole", **settings)
    assert counts["shards"] > 20 and counts["dropped"]["placeholders"] > 40 and counts["dropped"]["duplicate"] > 10
    draw = random.Random(1)
    for shards in (1, 4, 5, 12, 18):
        killed(source, tmp_path / "killed", shards, draw.uniform(0, 0.01), **settings)
        assert shards <= len(manifest(tmp_path / "killed")) < counts["shards"]  # or the test proves nothing
    with open(tmp_path / "killed" / "manifest.jsonl", "ab") as file:
        file.write(b'{"shard": "shard-0')  # cut off in mid-write
    assert run("llava", source, tmp_path / "killed", **settings) == counts
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert sorted(content(tmp_path / "whole"))[:3] == ["amalia.json", "counts.json", "dropped.jsonl"]


def test_killed_between_a_shard_and_its_line(tmp_path, monkeypatch):
    source = write_json(tmp_path / "m.json", [{"conversations": turns(i, 0)} for i in range(30)])
    run("llava", source, tmp_path / "whole")
    line, calls = import_folder._line, []

    def stop(content):
        calls.append(content)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return line(content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(import_folder, "_line", stop)
        run("llava", source, tmp_path / "out")
    assert (tmp_path / "out" / "shard-000001.tar").is_file() and len(manifest(tmp_path / "out")) == 1
    run("llava", source, tmp_path / "out")  # the digests of its samples are on disk, and it is written again
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_killed_while_the_index_is_made(tmp_path, monkeypatch):
    source, prepare = write_json(tmp_path / "m.json", [{"conversations": turns(i, 0)} for i in range(9)]), []

    def stop(folder):
        (folder / ".nv-meta").mkdir()
        (folder / ".nv-meta" / ".info.json").write_text("{")
        prepare.append(folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(import_folder, "prepare_folder", stop)
        run("llava", source, tmp_path / "out")
    assert prepare and run("llava", source, tmp_path / "out")["out"] == 9
    assert check_folder(tmp_path / "out")


@pytest.mark.parametrize("form", SOURCES)
def test_every_format_goes_on_where_it_was(tmp_path, form, monkeypatch):
    source = SOURCES[form](tmp_path)
    settings = {"shard_megabytes": 0.011}
    if form == "llava":
        settings["images"] = str(tmp_path / "llava" / "fotos")
    run(form, source, tmp_path / "whole", **settings)
    add, seen = ImportFolder.add, []

    def stop(self, key, sample):
        seen.append(key)
        if len(seen) in (6, 10):
            raise KeyboardInterrupt
        return add(self, key, sample)

    monkeypatch.setattr(ImportFolder, "add", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(form, source, tmp_path / "again", **settings)
    monkeypatch.setattr(ImportFolder, "add", add)
    assert 0 < len(manifest(tmp_path / "again")) < len(manifest(tmp_path / "whole"))
    run(form, source, tmp_path / "again", **settings)
    assert content(tmp_path / "again") == content(tmp_path / "whole")


def test_another_command_may_not_go_on(tmp_path):
    source = write_json(tmp_path / "m.json", [{"conversations": turns(i, 0)} for i in range(9)])
    run("llava", source, tmp_path / "out")
    with pytest.raises(ValueError, match="was begun with language  and this command has pt-PT: give what"):
        run("llava", source, tmp_path / "out", language="pt-PT")
    write_json(source, [{"conversations": turns(i, 0)} for i in range(8)])
    with pytest.raises(ValueError, match="was begun with files "):
        run("llava", source, tmp_path / "out")
    with pytest.raises(ValueError, match="holds something else than an import"):
        run("llava", source, tmp_path)
    with pytest.raises(ValueError, match="is named twice"):
        import_sources([source, source], tmp_path / "b", ImportSettings("llava", "s"))
    folder = ImportFolder(tmp_path / "c", {}, 1)
    with pytest.raises(ValueError, match="another import is writing to"):
        ImportFolder(tmp_path / "c", {}, 1)
    folder.close()
    ImportFolder(tmp_path / "c", {}, 1).close()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"form": "coco"}, "format 'coco' is not known: expected one of llava, parquet"),
        ({"source": "a.b"}, "--source 'a.b' begins the keys"),
        ({"shard_megabytes": 0}, "must be positive"),
        ({"images": "/nowhere"}, "--images /nowhere is no folder"),
        ({"prompts": ("<image>?",)}, "a --prompt is empty or has <image> in it"),
        ({"max_bad": 2}, "--max-bad 2 is a share"),
    ],
)
def test_settings_that_cannot_work(tmp_path, settings, fault):
    with pytest.raises(ValueError, match=fault):
        run(settings.pop("form", "llava"), tmp_path / "s.json", tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


MEASURE = """
import json, re, sys
from pathlib import Path
from nemo_amalia.data.import_folder import ImportFolder
from nemo_amalia.data.import_sources import ImportSettings, copy_records

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

def work(path, folder):
    folder = ImportFolder(Path(folder), {}, 8_000_000)
    copy_records(folder, [Path(path)], ImportSettings(form, "m", shard_megabytes=8))
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


def test_the_commands(tmp_path, capsys):
    source = llava_source(tmp_path / "s", 9)
    out = str(tmp_path / "out")
    words = ["data", "import", "llava", str(source), "--images", str(tmp_path / "s" / "fotos"), "--out", out]
    assert cli.main([*words, "--language", "pt-PT", "--shard-megabytes", "0.02"]) == 0
    printed = capsys.readouterr().out
    assert "9 records in = 9 samples out + 0 dropped" in printed and "6 images" in printed
    assert cli.main(["data", "verify", out]) == 0
    assert "all as in manifest.jsonl" in capsys.readouterr().out
    for line in manifest(tmp_path / "out"):
        assert hashlib.sha256((tmp_path / "out" / line["shard"]).read_bytes()).hexdigest() == line["sha256"]
    assert next(iter(records(tmp_path / "out"))) == "mix-00000-000000000"  # named after the source
    assert cli.main(words) == 2
    assert "was begun with language pt-PT" in capsys.readouterr().err
    assert cli.main([*words, "--prompt", "Quê?"]) == 2
    assert "--prompt is for captions" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert cli.main([*words[:-1], str(tmp_path / "file" / "x")]) == 2
    assert "cannot write to" in capsys.readouterr().err


def test_verify_names_what_differs(tmp_path, capsys):
    rows = [{"conversations": turns(i, 0)} for i in range(40)]
    run("llava", write_json(tmp_path / "m.json", rows), tmp_path / "out")
    shards = sorted((tmp_path / "out").glob("*.tar"))
    data = bytearray(shards[0].read_bytes())
    data[700] ^= 1
    shards[0].write_bytes(data)
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    shards[2].rename(tmp_path / "out" / "other.tar")
    assert cli.main(["data", "verify", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    for fault in (
        "4 shards of",
        "000000.tar (another sha256)",
        "000001.tar (",
        "000002.tar (missing)",
        "other.tar (not",
    ):
        assert fault in error
    assert cli.main(["data", "verify", str(tmp_path)]) == 2
    assert "has no finished shard" in capsys.readouterr().err
