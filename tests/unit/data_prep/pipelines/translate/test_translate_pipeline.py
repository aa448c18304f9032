"""The translation as a pipeline of the engine: from its configuration and shards to samples, drops and a report."""

import json
import tarfile

from engine_runs import make
from model_double import ModelDouble, texts

from data_prep import cli
from data_prep.config import compose
from data_prep.engine.folder import RunFolder
from data_prep.engine.model_access import open_models
from data_prep.pipelines.translate import pipeline, report
from nemo_amalia import cli as trainer
from nemo_amalia.data.shards.write import add_parts, sample_parts

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
PT = {
    "Where is the bus?": "Onde está o autocarro?",
    "The bus is next to the train station.": "O autocarro está junto à estação de comboios.",
    "There are 3 trains.": "Há 4 comboios.",  # never right
}


def shards(folder):
    def sample(key, answer, language="en"):
        turns = [{"role": "user", "content": "<image>\nWhere is the bus?"}, {"role": "assistant", "content": answer}]
        return {"key": key, "messages": turns, "images": [PNG], "source": "buses", "language": language}

    samples = [sample("a", "The bus is next to the train station."), sample("b", "There are 3 trains.")]
    folder.mkdir()
    with tarfile.open(folder / "shard-000000.tar", "w") as tar:
        for one in [*samples, sample("c", "O autocarro está aqui.", "pt-PT")]:
            add_parts(tar, sample_parts(one["key"], one))


def answer(body, number):
    words = texts(body)[0]
    if "Segmentos pedidos" in words:
        return json.dumps({"glossario": [], "segmentos": {"1": PT["There are 3 trains."]}})
    return PT[words.split("into Portuguese:\n\n\n")[1]]


def test_shards_go_in_and_samples_drops_and_a_report_come_out(tmp_path):
    shards(tmp_path / "in")
    with ModelDouble(answer) as double:
        words = [f"data.path={tmp_path / 'in'}", "data.licence=CC0-1.0", f"run_dir={tmp_path / 'run'}", "tries=2"]
        conf = compose("translate", [*words, f"models.servers.local.url={double.url}"])
        (ledger,), items = make(conf, pipeline.pipeline(conf), models=open_models(pipeline, conf))
    (item,) = items
    sample = item["sample"]
    assert sample["key"] == "a-pt" and sample["language"] == "pt-PT" and sample["images"] == [PNG]
    said = [turn["content"] for turn in sample["messages"]]
    assert said == ["<image>\nOnde está o autocarro?", PT["The bus is next to the train station."]]
    assert {role for role, _ in item["models"]} == {"translator"}
    assert {prompt.split("@")[0] for prompt in item["prompts"]} == {"translate/gemma"}
    assert dict(ledger.dropped()) == {"not_english": 1, "number": 1} and ledger.samples == 1
    page = report.page(report.read(tmp_path / "run"), ledger)
    assert page.startswith("3 samples in, 1 out (0 of them after a refusal), 2 dropped")
    assert "| editor: number | 2 |" in page and "| translator: number | 1 |" in page


def test_amalia_data_translate_run_writes_shards_that_amalia_verifies(tmp_path, capsys):
    shards(tmp_path / "in")
    with ModelDouble(answer) as double:
        words = [f"data.path={tmp_path / 'in'}", "data.licence=CC0-1.0", f"run_dir={tmp_path / 'run'}", "tries=1"]
        words += [f"out={tmp_path / 'out'}", f"models.servers.local.url={double.url}"]
        assert cli.main(["translate", "run", *words]) == 0
    said = capsys.readouterr()
    assert "1 samples, 1 images, 1 shards" in said.out
    assert said.err.startswith("not pinned to a revision") and "google/gemma-3-4b-it@unpinned (captioner, " in said.err
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        provenance = json.load(tar.extractfile("a-pt.json"))["provenance"]
    assert provenance["licence"] == "CC0-1.0"
    assert provenance["models"] == {"translator": ["google/gemma-3-4b-it@unpinned"]}
    assert trainer.main(["data", "verify", str(tmp_path / "out")]) == 0
    assert "1 shards" in capsys.readouterr().out
    shard = tmp_path / "out" / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"autocarro", b"autocarrO"))
    assert trainer.main(["data", "verify", str(tmp_path / "out")]) == 2
    assert "shard-000000.tar (another sha256)" in capsys.readouterr().err


def no_json(body, number):
    """An editor whose answers no schema takes."""
    words = texts(body)[0]
    return "não sei" if "Segmentos pedidos" in words else PT[words.split("into Portuguese:\n\n\n")[1]]


def test_the_report_counts_what_the_run_counts_before_and_after_its_end(tmp_path, capsys):
    shards(tmp_path / "in")
    where = [f"run_dir={tmp_path / 'run'}"]
    with ModelDouble(no_json) as double:
        words = [f"data.path={tmp_path / 'in'}", "data.licence=CC0-1.0", f"out={tmp_path / 'out'}", *where]
        words += ["records_per_chunk=1", f"models.servers.local.url={double.url}"]
        conf = compose("translate", words)
        RunFolder(conf).begin(conf, "c0ffee")
        models = open_models(pipeline, conf)
        make(conf, pipeline.pipeline(conf), models=models, tasks=2, only=[1], finish=False)  # b alone
        assert cli.main(["translate", "status", *where]) == 0
        assert "1 in = 0 out + 1 dropped (model_schema 1)" in capsys.readouterr().out
        assert cli.main(["translation-report", str(tmp_path / "run")]) == 0
        page = capsys.readouterr().out
        assert page.startswith("1 samples in, 0 out (0 of them after a refusal), 1 dropped;")
        assert "The run has not finished: 1 are done, of 3 samples." in page and "| model_schema | 1 |" in page
        assert cli.main(["translate", "run", *words]) == 0
    assert "translate                2 in = 1 out + 1 dropped (model_schema 1)" in capsys.readouterr().out
    assert cli.main(["translation-report", str(tmp_path / "run")]) == 0
    page = capsys.readouterr().out
    assert page.startswith("3 samples in, 1 out (0 of them after a refusal), 2 dropped;") and "not finished" not in page
    assert "| model_schema | 1 |" in page and "| not_english | 1 |" in page
    assert "| There are 3 trains. | Há 4 comboios. |" in page.partition("### Dropped\n")[2]
