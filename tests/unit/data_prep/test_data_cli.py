"""`amalia-data`: what it says to words that are wrong, and that it is quick to say it."""

import json
import subprocess
import sys
import time

import pytest

from data_prep.cli import main
from data_prep.config import compose, compose_unchecked, fill, names
from data_prep.engine.folder import RunFolder
from nemo_amalia.utils.errors import UserError


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["base_tex", "run"], "no data set is called 'base_tex': did you mean base_text?"),
        (["base_text"], "what should be done with base_text? write `amalia-data base_text run`"),
        (
            ["translation-reprt", "here"],
            "there is no translation-reprt: did you mean `amalia-data translation-report`?",
        ),
        (["base_text", "run", "fast"], "'fast' is not an override: write key=value"),
        (["base_text", "run", "shortst=3"], "unknown config key 'shortst': did you mean shortest?"),
        (["base_text", "run", "texts.pat=3"], "unknown config key 'texts.pat': did you mean texts.path?"),
        (
            ["base_text", "run", "executor=slrm"],
            "executor=slrm: conf/data_prep/executor has local, slurm (did you mean slurm?)",
        ),
        (["base_text", "run", "executor=slurm"], "no value for executor.partition: add executor.partition=..."),
        (["base_text", "run", "concurrency=0"], "concurrency=0: expected a whole number of at least 1"),
        (["base_text", "run", "max_model_errors=2"], "max_model_errors=2: expected a share, 0 to 1"),
        (["base_text", "run", "run_dir=/dev/null/x"], "cannot write to /dev/null/x"),
        (["base_text", "run", "pipeline=nowhere"], "there is no module nowhere"),
        (
            ["base_text", "status", "run_dir=/nowhere"],
            "no run has begun in /nowhere: begin one with",
        ),
        (
            ["translate", "status", "run_dir=/nowhere"],
            "`amalia-data translate run`, or say where it is with run",
        ),
    ],
)
def test_errors_are_one_line(words, text, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and text in said and said.count("\n") == 1


def test_an_output_folder_of_something_else_is_refused_before_anything_is_made(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert main(["base_text", "run", f"run_dir={tmp_path}/run", f"out={tmp_path}/out"]) == 2
    assert "out holds data of something else or of another run: choose another out" in capsys.readouterr().err
    assert not (tmp_path / "run" / "1-read_texts").exists() and not (tmp_path / "run" / "run.json").exists()


def test_run_dir_and_out_of_another_run_are_named_together(tmp_path, capsys):
    words = ["base_text", "run", f"run_dir={tmp_path}/run", f"out={tmp_path}/out", "limit=1", "shortest=1"]
    assert main(words) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main([*words, "seed=2"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/run is of a run with seed=0, and now it is 2: choose another run_dir" in said
    assert f"; and {tmp_path}/out holds data of something else or of another run: choose another out" in said
    assert main([*words, "seed=2", f"out={tmp_path}/new"]) == 2
    assert "; and" not in capsys.readouterr().err


def test_every_data_set_composes_for_both_executors():
    assert "base_text" in names()
    for name in names():
        own = ["data.path=any", "data.licence=CC0-1.0"] if name == "translate" else []
        assert compose(name, own).name == name
        assert (
            compose(name, [*own, "run_dir=there"]).answers == "there/answers"
        )  # the cache, and no option of a data set
        slurm = compose(name, [*own, "executor=slurm", "executor.partition=acc", "+executor.sbatch.constraint=highmem"])
        assert slurm.executor.name == "slurm" and slurm.executor.sbatch.constraint == "highmem"


def test_a_data_set_that_needs_a_source_says_so():
    with pytest.raises(
        UserError, match=r"no value for data.licence, data.path: add data.licence=\.\.\. to the command"
    ):
        compose("translate", [])
    with pytest.raises(UserError, match=r"unknown config key 'data.pth': did you mean data.path\?"):
        compose("translate", ["data.pth=x"])


def test_help_and_errors_come_without_heavy_imports():
    words = "import sys; from data_prep.cli import main; main(['base_text', 'status', 'run_dir=/nowhere']); "
    words += "print([m for m in ('torch', 'megatron', 'datatrove', 'transformers') if m in sys.modules])"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    print(f"{time.perf_counter() - start:.1f} s")


def test_a_wrong_value_is_mended_by_the_same_command_with_the_right_one(tmp_path, capsys):
    """It breaks where the source is called, when run.json is there already."""
    words = [f"run_dir={tmp_path}/run", f"out={tmp_path}/out"]
    (tmp_path / "texts").mkdir()
    assert main(["base_text", "run", f"texts.path={tmp_path}/texts", *words]) != 0
    assert not (tmp_path / "run" / "run.json").exists()
    text = "O elétrico sobe a rua devagar. À janela vai uma senhora com um cesto de laranjas."
    (tmp_path / "texts" / "a.txt").write_text(text)
    right = ["base_text", "run", f"texts.path={tmp_path}/texts", "texts.licence=CC0-1.0", *words]
    assert main(right) == 0, capsys.readouterr().err
    assert main([*right, "seed=2"]) == 2
    assert f"or remove {tmp_path}/run to make it anew" in capsys.readouterr().err


def test_status_needs_run_dir_alone(tmp_path, capsys):
    """What the command of the run gave is in its run.json: required keys, another pipeline's module."""
    here, missing = [f"run_dir={tmp_path}/run"], f"{tmp_path}/missing"
    begun = compose(
        "translate", [*here, "data.path=there", "data.licence=CC0-1.0", "pipeline=asking_pipeline", "limit=7"]
    )
    RunFolder(begun).begin(begun, "c0ffee")
    assert main(["translate", "status", *here]) == 0
    assert "1-numbers                waits" in capsys.readouterr().out
    assert main(["translate", "status", *here, "executor=slurm", "data.path=elsewhere", "pipeline=null"]) == 0
    assert "1-read_conversations     waits" in capsys.readouterr().out, "the command line goes before"
    assert main(["base_text", "status", *here]) == 2
    assert "is of translate: write `amalia-data translate status`" in capsys.readouterr().err
    assert main(["translate", "status", f"run_dir={missing}"]) == 2
    assert f"no run has begun in {missing}" in capsys.readouterr().err


def test_a_run_gives_status_its_settings_but_for_what_the_command_says():
    conf = compose_unchecked("translate", ["tries=5", "models=paper"])
    settings = {"data.path": "a", "data.licence": "b", "tries": 2, "server": "x", "models.roles.editor.model": "m"}
    fill(conf, ["tries=5", "models=paper"], settings)
    assert (conf.data.path, conf.tries, conf.server) == ("a", 5, "x") and conf.models.roles.editor.model != "m"
    with pytest.raises(UserError, match=r"no value for data.licence: add data.licence=\.\.\."):
        fill(compose_unchecked("translate", []), [], {"data.path": "a"})


def test_everything_dropped_before_a_barrier_is_said_with_reasons(tmp_path, capsys):
    words = ["base_text", "run", f"run_dir={tmp_path}/run", f"out={tmp_path}/out", "limit=3"]
    assert main([*words, "shortest=100000", "longest=200000"]) != 0
    said = capsys.readouterr().err.splitlines()[-1]
    assert "no sample came out of 3 records (too_short " in said and f"see {tmp_path}/run/dropped.jsonl" in said
    dropped = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()]
    assert {drop["reason"] for drop in dropped} == {"too_short"}


def test_a_finished_run_says_that_it_reads_nothing(tmp_path, capsys):
    words = ["base_text", "run", f"run_dir={tmp_path}/run", f"out={tmp_path}/out", "limit=1", "shortest=1"]
    assert main(words) == 0 and "finished before" not in capsys.readouterr().err
    assert main(words) == 0
    done = capsys.readouterr()
    assert "this run was finished before, and its source is not read again" in done.err and "shards" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "pt_ocr"], "the name comes first: write `amalia-data pt_ocr status`"),
        (["base_text", "--hlp"], "did you mean `amalia-data base_text --help`?"),
        (["base_text", "stauts"], "did you mean `amalia-data base_text status`?"),
    ],
)
def test_words_in_another_order_or_misspelt(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err
