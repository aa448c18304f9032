"""demo/report on an invented run: the page's numbers are those of the files, bad input is said."""

import json
import re

import pytest
from fabricated_run import ASKED, DRAWINGS, QUESTIONS, make_run
from markup import FOREIGN, Page
from PIL import Image

from demo.errors import DemoError
from demo.report import figures
from demo.report import page as report
from demo.report import variety as report_variety
from demo.report.cards import outcomes
from demo.report.readme_figure import PIXELS, examples, readme_figure
from demo.run_folder import read_run
from nemo_amalia.utils.errors import UserError


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The page of one invented run, built once."""
    run = make_run(tmp_path_factory.mktemp("built") / "run")
    return report.build(run, run / "report")


def test_page_says_what_the_files_say(built):
    html = built.read_text()
    # 48 scene questions; before: right at 0, 10, ... 50 (all scenes); after: wrong at 0, 7, 14, ... 56.
    wrong = [i for i in range(0, QUESTIONS, 7) if i % 10 < 8]
    after = report.percent((48 - len(wrong)) / 48)
    assert f'<span class="from">{report.percent(6 / 48)}</span>' in html
    assert f'<span class="to">{after}</span>' in html
    assert "of 48 held-out scene questions" in html
    assert '<span class="verdict missed">' in html and "reached" not in html
    assert "1.23\N{NO-BREAK SPACE}M" in html and "1,234,567" in html and "9.9.9" in html
    assert "1 min 31 s" in html  # 61.4 + 30
    assert report.count(20 * 400 + 50 * 400 + 10 * 400) in html
    assert html.count('<article class="card"') == ASKED


def test_page_is_whole_and_takes_nothing_from_elsewhere(built):
    out, html = built.parent, built.read_text()
    page = Page(html)
    assert not page.unbalanced and not page.open
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [v for _, a in page.tags for k, v in a.items() if k in ("src", "href", "xlink:href")]
    assert len([t for t in targets if t.startswith("images/")]) == ASKED + DRAWINGS  # examples of stage 3
    for target in targets:
        assert target.startswith(("images/", "#", "data:")), target
        assert not target.startswith("images/") or (out / target).is_file()
        assert not target.startswith("#") or target[1:] in ids
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")


def test_what_a_model_says_cannot_become_markup(built):
    html = built.read_text()
    assert "<b>outra" not in html and "&lt;b&gt;outra&lt;/b&gt;" in html
    assert "Questão &lt;3&gt; &amp; já?" in html


def page_that_says(folder, text: str) -> Page:
    """The page of an invented run with `text` for every foreign word: answers, kinds, file names, facts."""
    run = make_run(folder)
    image = f"images/{text.replace('/', '')}.png"
    (run / "images" / "q-000.png").rename(run / image)
    for when in ("before", "sft", "after"):
        lines = [json.loads(line) for line in (run / f"answers_{when}.jsonl").read_text().splitlines()]
        lines[0] |= {"kind": text, "image": image, "question": text, "answer": text, "prediction": f"{text} {when}"}
        lines[-1] |= {"prediction": f"{text} {when}"}  # a drawing: its question and answer must be known ones
        (run / f"answers_{when}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = {"layout": text, "seconds": {text: 3.0}, "versions": {text: text}}
    (run / "facts.json").write_text(json.dumps(facts))
    return Page(report.build(run, run / "report").read_text())


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_text_is_escaped_wherever_it_stands(tmp_path, text):
    """The page has the tags and attributes of one that says something harmless, and shows the text as it is."""
    harmless, page = page_that_says(tmp_path / "a", "inofensivo"), page_that_says(tmp_path / "b", text)
    assert page.shape() == harmless.shape() and not page.unbalanced and not page.open
    assert page.values("data-kind").count(text) == harmless.values("data-kind").count("inofensivo") == 1
    assert f"images/{text.replace('/', '')}.png" in page.values("src") and text in page.values("data-value")
    assert page.text.count(text) == harmless.text.count("inofensivo") > 10
    assert sum(text in alt for alt in page.values("alt")) == 1


def test_curves_follow_the_theme_and_have_ids_of_their_own(run):
    inputs = read_run(run)
    svgs = {name: figures.curve_svg(name, inputs) for name in figures.CURVES}
    for name, svg in svgs.items():
        assert svg.startswith("<svg viewBox=") and "var(--c2)" in svg
        assert not re.search(r"#0[1-6]0[1-6]0[1-6]", svg)
        assert all(i.startswith(f"{name}-") for i in re.findall(r'\bid="([^"]+)"', svg))
    for module in ("tower", "connector", "decoder"):
        assert f">{module}<" in svgs["rates"]


def test_stages_are_drawn_one_after_the_other(run):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    figures.draw_loss(axes, read_run(run), figures.PAPER)
    first, _, second, _ = axes.get_lines()[:4]
    assert list(first.get_xdata()) == list(range(1, 21))
    assert list(second.get_xdata()) == list(range(21, 71))
    assert list(second.get_ydata()) == [4.0 / step for step in range(1, 51)]


def test_stage_3_is_what_the_answers_add_up_to(run, built):
    """Of stage 2 five of six drawings are pt-BR, of stage 3 one; an answer has two forms."""
    shares = report_variety.figures(read_run(run))
    assert shares["pt-BR forms in answers about drawings"] == pytest.approx((5 / 6, 1 / 6))
    assert shares["drawings named right, in either variety"] == (1.0, 1.0)
    html = built.read_text()
    assert "10 of 12 were pt-BR after stage 2, 2 of 12 after stage 3; answers without any: 0 and 0." in html
    assert f'{report.percent(5 / 6)} <span aria-label="to">→</span> {report.percent(1 / 6)}' in html
    assert '<del>O desenho está <mark class="br">mostrando</mark> um <mark class="br">trem</mark> verde.</del>' in html
    assert '<mark class="pt">a mostrar</mark> um <mark class="pt">comboio</mark> verde' in html


def test_smoothing_is_a_centred_mean():
    assert figures.smooth([1.0, 2.0, 6.0, 8.0], 1) == pytest.approx([1.5, 3.0, 16 / 3, 7.0])
    assert figures.smooth([3.0, 5.0], 0) == [3.0, 5.0]


def test_outcomes_compare_before_and_after():
    def answer(text):
        return {"prediction": text, "answer": "Sim"}

    assert outcomes(answer("Não"), answer("sim")) == ["right", "learnt"]
    assert outcomes(answer("sim."), answer("sim")) == ["right"]
    assert outcomes(answer("sim"), answer("Não")) == ["wrong", "lost"]
    assert outcomes(answer(""), answer("Não")) == ["wrong"]


def test_readme_figure_has_its_size_and_takes_the_first_of_each_kind(run, tmp_path):
    inputs = read_run(run)
    out = tmp_path / "docs" / "demo.png"
    readme_figure(inputs, out)
    assert Image.open(out).size == PIXELS
    kinds = [after["kind"] for _, after in examples(inputs)]
    assert len(kinds) == 8 == len(set(kinds)) and "desenho" not in kinds
    for before, after in examples(inputs):
        assert after == next(r for r in inputs.after if r["kind"] == after["kind"])
        assert before["key"] == after["key"]


INPUTS = ["alignment/metrics.jsonl", "sft/metrics.jsonl", "dpo/metrics.jsonl", "answers_before.jsonl"]
INPUTS += ["answers_sft.jsonl", "answers_after.jsonl", "facts.json", "images/q-007.png"]


@pytest.mark.parametrize("name", INPUTS)
def test_each_missing_input_is_one_clear_line(run, name, capsys):
    (run / name).unlink()
    assert report.main(["--run", str(run)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert name in error and "missing" in error
    assert not (run / "report").exists()


def edit(path, change):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in change(lines)))


def test_answers_to_other_questions_are_refused(run):
    edit(run / "answers_before.jsonl", lambda lines: lines[:-1])
    with pytest.raises(DemoError, match="not of the same questions"):
        read_run(run)


def test_torn_empty_and_older_files_are_refused(run):
    path = run / "sft" / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-20])
    with pytest.raises(DemoError, match="line 50, is not JSON"):
        read_run(run)
    path.write_text("")
    with pytest.raises(DemoError, match="is empty"):
        read_run(run)
    path.write_text(whole.replace('"tiles"', '"tile"'))
    with pytest.raises(DemoError, match="line 1, lacks tiles"):
        read_run(run)
    path.write_text(whole)
    (run / "facts.json").write_text("[1]")
    with pytest.raises(UserError, match="holds a JSON list, expected an object"):
        read_run(run)
    (run / "facts.json").write_text("{")
    with pytest.raises(UserError, match="is corrupt or truncated"):
        read_run(run)


def test_no_scene_question_and_unwritable_folder_are_refused(run, tmp_path):
    for when in ("before", "sft", "after"):
        edit(run / f"answers_{when}.jsonl", lambda lines: [r for r in lines if r["source"] != "cenas"])
    with pytest.raises(DemoError, match="no scene question"):
        report.build(run, run / "report")
    blocked = tmp_path / "file"
    blocked.write_text("")
    other = make_run(tmp_path / "other")
    with pytest.raises(DemoError, match="cannot write"):
        report.build(other, blocked)
    with pytest.raises(DemoError, match="cannot write"):
        readme_figure(read_run(other), blocked / "demo.png")
