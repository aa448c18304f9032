"""`amalia-data NAME --help`: what each data set is, and every setting that it has."""

import sys
from pathlib import Path

import pytest

from data_prep.cli import main
from data_prep.config import CONF, PIPELINES, names

ROOT = Path(__file__).resolve().parents[3]
PAGES = {
    "translate": "docs/data_prep/translation.md",
    "pt_ocr": "docs/data_prep/pt_ocr.md",
    "base_text": "docs/data_prep.md",
}


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("words", [["--help"], ["run", "-h"], ["status", "seed=1", "--help"]])
def test_help_has_the_docstring_the_commands_the_settings_and_the_page(name, words, capsys):
    assert main([name, *words]) == 0
    said = capsys.readouterr().out
    docstring = (PIPELINES / name / "pipeline.py").read_text().removeprefix('"""').split('"""')[0]
    assert said.startswith(docstring.strip())
    assert f"amalia-data {name} run" in said and f"amalia-data {name} status" in said
    own = (CONF / f"{name}.yaml").read_text()
    files = [own, (CONF / "common" / "engine.yaml").read_text()]
    files += [(CONF / "common" / "code.yaml").read_text()] if "common/code@_global_" in own else []
    lines = {line.strip() for line in said.splitlines()}
    for line in "\n".join(files).splitlines():
        assert line.strip() in lines
    assert "executor=  one of local, slurm" in said
    assert ("models=  one of local, paper" in said) == ("models: local" in own)
    page = PAGES.get(name, "docs/data_prep/code.md")
    assert said.endswith(f"More: {page}\n") and (ROOT / page).is_file()


def test_help_for_a_name_that_is_not_there_names_the_nearest(capsys):
    assert main(["trnslate", "--help"]) == 2
    assert capsys.readouterr().err == "error: no data set is called 'trnslate': did you mean translate?\n"


def test_help_imports_no_pipeline(monkeypatch):
    monkeypatch.delitem(sys.modules, "data_prep.pipelines.base_text.pipeline", raising=False)
    main(["base_text", "--help"])
    assert "data_prep.pipelines.base_text.pipeline" not in sys.modules
