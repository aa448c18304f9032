"""From a source to shards that the loader reads: what comes back, counts, limits, settings, checksums, the commands."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from chatml import picture
from imports import SOURCES, run
from sources import chat, llava_source, turns, write_json, write_parquet
from streams import build_loader
from tiny_shards import conversations

from nemo_amalia import cli
from nemo_amalia.data.encoding.cookers import cook_conversation, cook_preference
from nemo_amalia.data.shards.check import check_folder
from nemo_amalia.data.shards.manifest import manifest
from nemo_amalia.data.shards.write import write_shards
from nemo_amalia.utils.errors import UserError


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
        sample, raw = cook_preference(record), json.loads(record["json"])
        assert (key, sample.language) == (f"teste-00000-{index:09d}", "pt-BR")
        assert [m["role"] for m in sample.prompt] == ["user"] and len(sample.images) == 1
        assert (sample.chosen, sample.rejected) == (raw["chosen"], raw["rejected"])
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
        UserError, match=r"1 of 11 records are bad \(placeholders 1\), more than --max-bad 0.01"
    ) as info:
        run("llava", source, tmp_path / "out")
    assert "\n" not in str(info.value)
    with pytest.raises(UserError, match="has not ended: run the same `amalia data import` again"):
        check_folder(tmp_path / "out")
    assert run("llava", source, tmp_path / "out", max_bad=0.1)["out"] == 10
    assert check_folder(tmp_path / "out")
    with pytest.raises(UserError, match=r"record 10 of .*m.json has 1 <image> placeholders and 0 pictures"):
        run("llava", source, tmp_path / "b", on_bad="fail")
    with pytest.raises(UserError, match="no sample came out of 1 records .placeholders 1"):
        run("llava", write_json(tmp_path / "n.json", rows[-1:]), tmp_path / "c", max_bad=1)


def test_a_limit_counts_records_read(tmp_path):
    counts = run("llava", llava_source(tmp_path / "s", 9), tmp_path / "out", limit=4, max_bad=1)
    assert (counts["in"], counts["dropped"]) == (4, {"missing_image": 2})  # without --images


def test_a_missing_picture_is_named_with_the_whole_folder_and_the_option(tmp_path, monkeypatch):
    write_json(tmp_path / "m.json", [{"conversations": turns(0, 1), "image": "a/falta.jpg"}])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"missing_image 1.*--images names the folder"):
        run("llava", Path("m.json"), tmp_path / "out")
    dropped = json.loads((tmp_path / "out" / "dropped.jsonl").read_text())
    assert f"names a/falta.jpg, which is not in {tmp_path} (No such file" in dropped["message"]
    assert "give --images" in dropped["message"]
    with pytest.raises(UserError, match=r"missing_image 1.*--images names the folder"):
        run("llava", Path("m.json"), tmp_path / "none", max_bad=1)
    with pytest.raises(UserError, match=rf"not in {tmp_path} .*give --images"):
        run("llava", Path("m.json"), tmp_path / "fail", on_bad="fail")


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
    with pytest.raises(UserError, match=fault):
        run(settings.pop("form", "llava"), tmp_path / "s.json", tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


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
    assert "holds no shard (*.tar)" in capsys.readouterr().err


def test_verify_of_shards_without_a_manifest_says_how_to_get_one(tmp_path, capsys):
    folder, copy = tmp_path / "out", tmp_path / "copy"
    write_shards(conversations(7), folder, samples_per_shard=3)
    verify = ["data", "verify", str(folder)]
    assert cli.main(verify) == 0  # write_shards adds one
    (folder / "manifest.jsonl").unlink()
    assert cli.main(verify) == 2
    error = capsys.readouterr().err
    assert "has 3 shards and no manifest.jsonl with their checksums" in error and error.count("\n") == 1
    assert f"`amalia data verify {folder} --write` records them" in error
    assert cli.main([*verify, "--write"]) == 0 and "checksums of 3 shards as they are now" in capsys.readouterr().out
    shutil.copytree(folder, copy)
    assert cli.main(verify) == 0 and cli.main([*verify[:2], str(copy)]) == 0
    (copy / "shard-000001.tar").write_bytes(b"torn")
    assert cli.main([*verify[:2], str(copy)]) == 2 and "shard-000001.tar (4 bytes" in capsys.readouterr().err
    assert cli.main([*verify, "--write"]) == 2 and "has a manifest.jsonl already" in capsys.readouterr().err
    (copy / "manifest.jsonl").unlink()
    (copy / "import.json").touch()  # of an import that was killed before its first shard was finished
    assert cli.main([*verify[:2], str(copy), "--write"]) == 2 and "import that has not ended" in capsys.readouterr().err
