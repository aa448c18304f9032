"""Translation's files: the conversations it reads, and the report that survives a kill."""

import json
import tarfile
from collections import Counter

import pytest

from data_prep import cli
from data_prep.engine.ledger import Ledger, StepCounts
from data_prep.pipelines.translate import report
from data_prep.pipelines.translate.sources import read_conversations
from data_prep.translation.segments import split
from data_prep.translation.work import Work
from nemo_amalia.data.shards.write import add_parts, sample_parts
from nemo_amalia.utils.errors import UserError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
MESSAGES = [{"role": "user", "content": "<image> <image> What?"}]


def tar(folder, *samples):
    with tarfile.open(folder / "shard-000000.tar", "w") as file:
        for sample in samples:
            add_parts(file, sample_parts(sample["key"], sample))


def test_shards_are_read_as_they_were_written(tmp_path):
    images = [PNG + bytes([i]) for i in range(12)]  # 10 and 11 come after 9
    first = {"key": "a-1", "messages": MESSAGES, "images": images, "source": "s", "language": "en"}
    second = {**first, "key": "a-2", "images": [], "source": ""}
    tar(tmp_path, first, second)
    read = list(read_conversations(path=str(tmp_path), licence="CC0-1.0"))
    assert read[0] == {**first, "licence": "CC0-1.0"}
    assert read[1]["key"] == "a-2" and read[1]["source"] == "shard-000000.tar" and read[1]["images"] == []


def test_jsonl_is_read_with_images_beside_it(tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "x.png").write_bytes(PNG)
    line = {"messages": MESSAGES, "images": ["i/x.png"], "provenance": {"licence": "CC-BY-4.0"}, "other": 1}
    (tmp_path / "set.jsonl").write_text(json.dumps(line) + "\n")
    (sample,) = read_conversations(path=str(tmp_path), licence="CC0-1.0", source="mine")
    assert sample["key"] == "set-00000000" and sample["images"] == [PNG] and sample["source"] == "mine"
    assert sample["licence"] == "CC-BY-4.0" and "other" not in sample and "provenance" not in sample


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "bad.jsonl, line 1 is not JSON"),
        ('{"text": "x"}', "bad.jsonl, line 1 has no messages"),
        ('{"messages": [], "images": ["no.png"]}', "bad.jsonl, line 1: an image cannot be read"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, line, message):
    (tmp_path / "bad.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        list(read_conversations(path=str(tmp_path), licence="CC0-1.0"))


def test_a_folder_without_conversations_or_licence_is_named(tmp_path):
    with pytest.raises(UserError, match="has no .tar or .jsonl file"):
        list(read_conversations(path=str(tmp_path), licence="CC0-1.0"))
    (tmp_path / "set.jsonl").write_text("{}")
    with pytest.raises(UserError, match="have no licence: give"):
        list(read_conversations(path=str(tmp_path), licence=""))


def test_one_file_is_read_as_a_folder_of_it_and_another_kind_is_named(tmp_path):
    (tmp_path / "x.png").write_bytes(PNG)
    (tmp_path / "set.jsonl").write_text(json.dumps({"messages": MESSAGES, "images": ["x.png"]}) + "\n")
    tar(tmp_path, {"key": "a-1", "messages": MESSAGES, "images": [PNG], "source": ""})
    whole = list(read_conversations(path=str(tmp_path), licence="CC0-1.0"))
    names = ("set.jsonl", "shard-000000.tar")
    alone = [one for name in names for one in read_conversations(path=str(tmp_path / name), licence="CC0-1.0")]
    assert alone == whole and [one["source"] for one in alone] == list(names)
    for name in ("x.png", "gone.jsonl"):
        with pytest.raises(UserError, match=f"{name} is no folder and no .tar or .jsonl file: give data.path=FOLDER"):
            list(read_conversations(path=str(tmp_path / name), licence="CC0-1.0"))


def work(text, translation=None, reason=None):
    found = Work(split({"key": "k", "messages": [{"role": "user", "content": text}]}))
    found.offer(0, translation, "editor", "m@1")
    return found


def test_the_report_counts_a_sample_once_and_adds_up(tmp_path):
    log = report.Log(tmp_path)
    good, bad = work("A red dog.", "Um cão vermelho."), work("A red dog.", " ")
    log.write(report.record("a", bad, "empty", "vazia"))
    log.write(report.record("b", bad, "empty", "sample b: a tradução está vazia | x"))
    log.write(report.record("a", good))  # done again after a kill, and this time it came out
    folder = tmp_path / report.FOLDER
    (file,) = folder.iterdir()
    other = folder / "other-1.jsonl"
    other.write_text(file.read_text().splitlines()[0] + "\n" + '{"key": "c", "at": 1, "rea')  # an older line; a cut one
    records = report.read(tmp_path)
    assert [(one["key"], one["reason"]) for one in records] == [("a", ""), ("b", "empty")]
    ledger = Ledger([StepCounts("translate", 2, 1, dropped=Counter(empty=1))], 2, 1)
    page = report.page(records, ledger)
    assert page.startswith("2 samples in, 1 out (0 of them after a refusal), 1 dropped; 1.60 characters")
    assert "| editor: empty | 1 |" in page and "| translated | 1 |" in page and "| m@1 | 1 |" in page
    assert "| A red dog. | Um cão vermelho. |" in page and "está vazia \\| x |" in page


def test_the_command_names_what_it_lacks(tmp_path, capsys):
    assert cli.main(["translation-report", str(tmp_path / "x")]) == 2
    assert "x has no run.json: give the run_dir of" in capsys.readouterr().err
    (tmp_path / "run.json").write_text('{"name": "base_text", "settings": {}}')
    assert cli.main(["translation-report", str(tmp_path)]) == 2
    assert "is of base_text: this report is of `amalia-data translate run`" in capsys.readouterr().err
    assert cli.main(["translation-report"]) == 2
    assert "which run? write `amalia-data translation-report RUN_DIR`" in capsys.readouterr().err
    assert cli.main(["translation-report", "--help"]) == 0
    assert "amalia-data translation-report RUN_DIR" in capsys.readouterr().out
