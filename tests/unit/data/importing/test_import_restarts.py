"""An import that is killed at any moment goes on to the same bytes; another command may not go on."""

import multiprocessing
import os
import random
import signal
import time

import pytest
from imports import SOURCES, content, run
from sources import turns, write_json
from stream_settings import PIXELS

from nemo_amalia.data.importing import folder as import_folder
from nemo_amalia.data.importing.command import ImportSettings, import_sources
from nemo_amalia.data.importing.folder import ImportFolder
from nemo_amalia.data.shards.check import check_folder
from nemo_amalia.data.shards.manifest import manifest
from nemo_amalia.utils.errors import UserError

FORK = multiprocessing.get_context("fork")


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
    with pytest.raises(UserError, match="was begun with language none and this command has pt-PT: give what"):
        run("llava", source, tmp_path / "out", language="pt-PT")
    write_json(source, [{"conversations": turns(i, 0)} for i in range(8)])
    with pytest.raises(UserError, match=r"was begun with files .*m.json \([\d,]+ bytes\) and this command has"):
        run("llava", source, tmp_path / "out")
    with pytest.raises(UserError, match="holds something else than an import"):
        run("llava", source, tmp_path)
    with pytest.raises(UserError, match="is named twice"):
        import_sources([source, source], tmp_path / "b", ImportSettings("llava", "s", PIXELS))
    folder = ImportFolder(tmp_path / "c", {"max_image_pixels": PIXELS}, 1)
    with pytest.raises(UserError, match="another import is writing to"):
        ImportFolder(tmp_path / "c", {"max_image_pixels": PIXELS}, 1)
    folder.close()
    ImportFolder(tmp_path / "c", {"max_image_pixels": PIXELS}, 1).close()
