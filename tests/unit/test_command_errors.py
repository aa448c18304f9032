"""Every command: a UserError is one line and exit code 2; a library's error is a traceback and exit code 1, always."""

import importlib
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from data_prep import cli as data_cli
from data_prep import config as data_config
from nemo_amalia import cli
from nemo_amalia.utils import errors
from nemo_amalia.utils.errors import ConfigError, ReportedError, UserError

ROOT = Path(__file__).resolve().parents[2]


class Case(types.SimpleNamespace):
    """words of a command that get it to `target` ("module:name"), the function that does its work."""

    def __init__(self, target: str, *words: str) -> None:
        super().__init__(target=target, words=words)


AMALIA = {
    "import": Case("nemo_amalia.bridge.folders:check_hf_folder", "--hf", "{tmp}", "--out", "{tmp}/out"),
    "export": Case("nemo_amalia.cli:megatron_loaded", "--checkpoint", "{tmp}", "--out", "{tmp}/out"),
    "train": Case("nemo_amalia.config.compose:compose", "stage=sft"),
    "train --check": Case("nemo_amalia.training.launch.train:check", "data.path=d", "model.checkpoint=c", "run_dir=r"),
    "reference": Case("nemo_amalia.config.compose:compose", "--checkpoint", "{tmp}", "--data", "{tmp}"),
    "plan": Case("nemo_amalia.cluster.commands:plan_command", "stage=sft"),
    "plan --search": Case("nemo_amalia.cluster.commands:requested", "stage=sft"),
    "dryrun": Case("nemo_amalia.cluster.plan.request:checked", "stage=sft"),
    "status": Case("nemo_amalia.cluster.status:read_state", "{tmp}"),
    "doctor": Case("nemo_amalia.cluster.doctor.machine:requirements"),
    "doctor --cluster": Case("nemo_amalia.cluster.doctor.nodes:run_rank"),
    "doctor --container": Case("nemo_amalia.cluster.doctor.machine:requirements"),
    "data mix": Case("nemo_amalia.data.mix.command:survey", "root={tmp}"),
    "data view": Case("nemo_amalia.data.view.command:make_view", "{tmp}", "--assets", "{tmp}", "--out", "{tmp}/a.html"),
    "data import": Case("nemo_amalia.data.importing.command:import_sources", "llava", "{tmp}", "--out", "{tmp}/out"),
    "data verify": Case("nemo_amalia.data.shards.verify:verify", "{tmp}"),
    "data pack": Case("nemo_amalia.data.packing.command:make_index", "{tmp}", "--assets", "{tmp}", "--out", "{tmp}/o"),
}
AMALIA_DATA = {
    **{f"{name} run": Case("data_prep.cli:run_pipeline", "executor=local") for name in data_config.names()},
    **{f"{name} status": Case("data_prep.engine.folder:RunFolder") for name in data_config.names()},
    **{f"{name} --help": Case("data_prep.usage:usage") for name in data_config.names()},
    "variety": Case("data_prep.variety_command:decisions", "{tmp}"),
    "translation-report": Case("data_prep.pipelines.translate.report:read", "{tmp}"),
}
CASES = {**{f"amalia {name}": case for name, case in AMALIA.items()}}
CASES |= {f"amalia-data {name}": case for name, case in AMALIA_DATA.items()}
LIBRARY_ERRORS = {  # kind -> arguments
    ValueError: ("operands could not be broadcast together",),
    json.JSONDecodeError: ("Expecting property name", "{", 1),
    UnicodeDecodeError: ("utf-8", b"\xff", 0, 1, "invalid start byte"),
}


def test_every_command_has_a_case():
    top = cli.parser(with_data=True)
    [below] = [action for action in top._actions if action.dest == "command"]
    [data] = [action for action in below.choices["data"]._actions if action.dest == "data_command"]
    known = {*below.choices, *(f"data {name}" for name in data.choices)} - {"data"}
    assert {name.partition(" --")[0] for name in AMALIA} == known
    expected = {f"{name} {doing}" for name in data_config.names() for doing in data_cli.DOINGS}
    assert set(AMALIA_DATA) == expected | set(data_cli.COMMANDS)


def call(command: str, tmp_path: Path, monkeypatch, error: Exception) -> int:
    """The exit code of a command whose work raises `error`; what main does not catch comes out."""
    case = CASES[command]
    if command.endswith(" run") or command.endswith(" status"):
        conf = types.SimpleNamespace(run_dir=str(tmp_path), name="x")
        monkeypatch.setattr(data_config, "compose", lambda name, words: conf)
        monkeypatch.setattr(data_config, "compose_unchecked", lambda name, words: conf)
    module, _, name = case.target.partition(":")
    called = []

    def fail(*_, **__):
        called.append(name)
        raise error

    work = getattr(importlib.import_module(module), name)
    monkeypatch.setattr(importlib.import_module(module), name, fail)
    program, *words = command.split()
    words += [word.format(tmp=tmp_path) for word in case.words]
    try:
        return (cli if program == "amalia" else data_cli).main(words)
    finally:
        for other in [module for key, module in sys.modules.items() if key.startswith(("nemo_amalia", "data_prep"))]:
            for key in [key for key, value in vars(other).items() if value is fail]:
                setattr(other, key, work)  # imported meanwhile, with `from ... import`
        assert called, f"{command} does not call {case.target}"


@pytest.mark.parametrize("command", CASES)
@pytest.mark.parametrize("kind", LIBRARY_ERRORS)
def test_a_librarys_error_comes_out(command, kind, tmp_path, monkeypatch, capsys):
    error = kind(*LIBRARY_ERRORS[kind])
    with pytest.raises(kind) as info:
        call(command, tmp_path, monkeypatch, error)
    assert info.value is error and "error:" not in capsys.readouterr().err


@pytest.mark.parametrize("command", CASES)
def test_a_users_error_is_one_line(command, tmp_path, monkeypatch, capsys):
    assert call(command, tmp_path, monkeypatch, ConfigError("seen,\n expected, to do")) == errors.USER_ERROR
    assert capsys.readouterr().err == "error: seen, expected, to do\n"


def test_no_error_of_ours_is_a_valueerror_and_no_librarys_error_is_ours():
    kinds = [UserError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert len(kinds) > 4 and not [kind for kind in kinds if issubclass(kind, ValueError | OSError)]
    assert not [kind for kind in LIBRARY_ERRORS if issubclass(kind, UserError | ReportedError)]


def amalia(*words, module="nemo_amalia.cli", cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        capture_output=True, text=True, timeout=60, cwd=cwd, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_a_traceback_ends_with_exit_code_1(tmp_path):
    code = (
        "import sys, nemo_amalia.cluster.status as status; from nemo_amalia.cli import main\n"
        "def fail(*_): raise ValueError('operands could not be broadcast')\n"
        "status.read_state = fail; sys.exit(main(['status', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == errors.FAILED
    assert "Traceback (most recent call last)" in done.stderr and "error: " not in done.stderr
    assert done.stderr.endswith("ValueError: operands could not be broadcast\n")


def test_a_run_state_that_was_cut_off_is_named(tmp_path):
    (tmp_path / "r" / "logs").mkdir(parents=True)
    (tmp_path / "r" / "run_state.json").write_text("{\n")
    (tmp_path / "r" / "metrics.jsonl").write_text('{"step":1}\n')
    done = amalia("status", "r", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: r/run_state.json is corrupt or truncated (")


def test_an_index_of_shards_that_was_cut_off_is_named(tmp_path, capsys):
    from tiny_shards import conversations

    from nemo_amalia.data.shards.write import write_shards

    folder = write_shards(conversations(4), tmp_path / "data").folder
    info = folder / ".nv-meta" / ".info.json"
    info.write_text(info.read_text()[:20])
    assert cli.main(["data", "pack", str(folder), "--assets", str(tmp_path), "--out", str(tmp_path / "index")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {info} is corrupt or truncated (") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--chekc"], "unrecognized arguments: --chekc"),
        (["import", "--out"], "argument --out: expected one argument"),
        (["import", "--out", "x", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["status"], "the following arguments are required: run_dir"),
        (["data", "view", "x", "--samples", "0"], "--samples"),
        ([], "the following arguments are required: command"),
    ],
)
def test_what_argparse_refuses_ends_with_exit_code_2(words, said, capsys):
    with pytest.raises(SystemExit) as info:
        cli.main(words)
    assert info.value.code == errors.USER_ERROR
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("program", [cli, data_cli])
def test_ctrl_c_is_one_line(program, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "doctor", interrupted)
    monkeypatch.setattr(data_cli, "run", interrupted)
    words = ["doctor"] if program is cli else ["base_text", "run"]
    assert program.main(words) == errors.INTERRUPTED
    assert re.fullmatch(r"error: interrupted[^\n]*\n", capsys.readouterr().err)


def test_a_step_that_broke_is_one_line_and_no_users_error(monkeypatch, capsys):
    def broken(*_):
        raise ReportedError("step x failed: see run_dir/errors/x.txt")

    monkeypatch.setattr(data_cli, "run", broken)
    assert data_cli.main(["base_text", "run"]) == errors.FAILED
    assert capsys.readouterr().err == "error: step x failed: see run_dir/errors/x.txt\n"


def test_the_table_of_exit_codes_is_that_of_the_code_and_of_the_batch_script():
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    section = page.partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \|(?: `(\w+)`)? \|", section, re.MULTILINE)
    names = {name: value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert {name: int(code) for code, name in rows if name} == names
    assert [int(code) for code, _ in rows] == sorted([0, *names.values()])
    script = (ROOT / "slurm" / "job.sh").read_text(encoding="utf-8")
    asked = set(map(int, re.findall(r"exit code (\d+)", script)))
    assert asked == {errors.STOPPED, errors.PEER_LOST, errors.USER_ERROR}
    assert f"rc == {errors.USER_ERROR}" in script and f"rc={errors.STOPPED}" in script
    refuses = re.search(r"^refuse\(\).*?^}", script, re.DOTALL | re.MULTILINE)[0]
    assert f"exit {errors.USER_ERROR}" in refuses
