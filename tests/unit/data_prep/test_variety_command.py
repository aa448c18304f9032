"""`amalia-data variety FILE`: what a person reads and what a program reads."""

import io
import json

import pytest

from data_prep import cli
from data_prep.variety_command import main
from nemo_amalia.utils.errors import UserError

TEXT = "O autocarro partiu.\n\nDe fato, o ônibus\tpartiu.\nUm gato preto.\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text(TEXT)
    return path


def test_a_person_sees_the_evidence_underlined(file, capsys):
    assert main([str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("    3"))
    begin = lines[at].index("De fato")
    assert lines[at].startswith("    3  pt-BR") and lines[at].endswith("dropped: variety_lexical")
    assert lines[at + 1][begin:] == "   ^^^^    ^^^^^^"
    assert "pt-PT says autocarro" in "\n".join(lines[at + 2 :])
    assert any("~~~~~~~~~" in line for line in lines)
    assert lines[-1] == "3 lines: 1 pt-PT, 1 unknown, 1 variety_lexical"


def test_jsonl_has_a_record_a_line_with_spans(file, capsys):
    main([str(file), "--jsonl"])
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["line"] for record in records] == [1, 3, 4]
    assert [record["keep"] for record in records] == [True, False, True]
    piece = records[0]["evidence"][0]
    assert records[0]["text"][piece["start"] : piece["end"]] == "autocarro" and piece["variety"] == "pt-PT"


def test_jsonl_input_and_the_key(tmp_path, capsys):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"caption": "O ônibus partiu."}) + "\n")
    main([str(path), "--field", "caption", "--dropped"])
    assert "dropped: variety_lexical" in capsys.readouterr().out
    with pytest.raises(UserError, match="line 1 is no JSON object with 'text'"):
        main([str(path)])
    path.write_text('{"text": 3}\n')
    with pytest.raises(UserError, match="is int, expected text"):
        main([str(path)])


def test_a_key_for_lines_of_text_is_refused(file):
    for name in (str(file), "-"):
        with pytest.raises(UserError, match=r"^--field x: .* is read as text, one a line; leave --field out"):
            main([name, "--field", "x"])


def test_standard_input(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXT))
    main(["-", "--dropped"])
    assert capsys.readouterr().out.count("dropped:") == 1


def test_settings_and_their_errors(file, capsys):
    main([str(file), "--jsonl", "lexical.brazilian_from=100"])
    assert all(json.loads(line)["keep"] for line in capsys.readouterr().out.splitlines())
    main(["lexical.brazilian_from=100", str(file), "--dropped"])  # in any order
    assert capsys.readouterr().out == "3 lines: 1 pt-PT, 2 unknown\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["lexical.brasilian_from=9"],
            "unknown config key 'lexical.brasilian_from': did you mean lexical.brazilian_from?",
        ),
        (["lexical.weights.pt_BR.strong=3"], "did you mean lexical.weights.pt-BR?"),
        (["zzz=1"], "unknown config key 'zzz': see conf/data_prep/variety.yaml"),
        (["lexical=3"], "lexical=3: expected settings below it, as in conf/data_prep/variety.yaml"),
        (["agreement.certain=much"], "agreement.certain=much: expected a number"),
        (["agreement.unknown=1"], "agreement.unknown=1: expected true or false"),
        (["lexical.brazilian_from=[3"], "'lexical.brazilian_from=[3': a value cannot be read as YAML ("),
        (["other.txt"], "2 files (other.txt, {file}): write `amalia-data variety FILE"),
    ],
)
def test_wrong_settings_are_one_line_with_the_remedy(file, words, text, capsys):
    assert cli.main(["variety", *words, str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and text.format(file=file) in said and said.count("\n") == 1


def test_usage_and_its_error_ask_for_a_file_alone(capsys):
    assert cli.main(["variety"]) == 2
    assert "no file: write `amalia-data variety FILE [key=value ...]`" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--jsnl"])
    said = capsys.readouterr().err
    assert "usage: amalia-data variety FILE [--jsonl] [--field KEY] [--dropped] [key=value ...]" in said


def test_a_file_that_is_not_there():
    with pytest.raises(UserError, match="is no file"):
        main(["no_such_file.txt"])


def test_a_file_in_another_encoding_is_said(tmp_path):
    (tmp_path / "antigo.txt").write_bytes("Não há autocarros à noite.\n".encode("latin1"))
    with pytest.raises(UserError, match=r"antigo.txt is not UTF-8 .*iconv -f latin1 -t utf-8"):
        main([str(tmp_path / "antigo.txt")])
