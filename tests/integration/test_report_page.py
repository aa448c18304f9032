"""The report in a real browser: headless Chromium opens it from the disk, a frame around it presses its buttons.

A frame page loads the report at a phone's width, looks at what is really laid out, and leaves its findings as JSON
for --dump-dom. Script errors and failed loads are read from Chromium's own log of the console.
"""

import shutil

import pytest
from browser import CHROMIUM, MISSING, browse
from fabricated_run import ASKED, DRAWINGS, make_run, prediction, questions

from demo.report import page as report
from demo.score import is_correct

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

FRAME = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" src="report.html" style="width:390px;height:900px;border:0"></iframe><pre id="found"></pre>
<script>
window.addEventListener("load", async () => {
  const page = document.getElementById("page").contentDocument;
  const cards = () => [...page.querySelectorAll("#gallery .card")].filter((c) => c.getClientRects().length);
  const names = () => cards().map((c) => c.querySelector("img").getAttribute("src"));
  const press = (filter, value) => page.querySelector(`[data-filter="${filter}"][data-value="${value}"]`).click();
  const found = { first: names(), views: {} };
  for (const kind of ["all", "cor", "fotografia"]) for (const outcome of ["wrong", "learnt", "lost"]) {
    press("kind", kind); press("outcome", outcome);
    found.views[`${kind} ${outcome}`] = names();
  }
  found.pressed = [...page.querySelectorAll('[aria-pressed="true"]')].map((b) => b.dataset.value);
  found.status = page.getElementById("shown").textContent;
  press("kind", "all"); press("outcome", "all");
  page.getElementById("more").click();
  found.all = names().length;
  const root = page.documentElement;
  found.overflow = root.scrollWidth - root.clientWidth;
  found.curves = [...page.querySelectorAll("figure svg")].map((s) => s.getBoundingClientRect().height > 100);
  const images = [...page.images];
  await Promise.all(images.map((image) => new Promise((done) => {
    image.addEventListener("load", done);
    image.addEventListener("error", done);
    image.loading = "eager";
    if (image.complete) done();
  })));
  found.broken = images.filter((i) => i.naturalWidth === 0).map((i) => i.getAttribute("src"));
  found.loaded = images.filter((i) => i.naturalWidth > 0).length;
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("page") / "run")
    return report.build(run, run / "report").parent


@pytest.fixture(scope="module")
def seen(built, tmp_path_factory):
    return browse(built, tmp_path_factory.mktemp("profile"), FRAME)


def expected(kind: str, outcome: str) -> list[str]:
    """The pictures that a view should show, from the invented answers alone."""
    shown = []
    for index, record in enumerate(questions()):
        first = "sft" if record["kind"] == "desenho" else "before"
        was, now = (is_correct(prediction(record, index, when), record["answer"]) for when in (first, "after"))
        fits = {"wrong": not now, "learnt": now and not was, "lost": was and not now}[outcome]
        if fits and kind in ("all", record["kind"]):
            shown.append(record["image"])
    return shown[:24]


def test_no_error_reaches_the_console(seen):
    assert seen[1] == []


def test_every_picture_and_curve_is_there(seen):
    found, _ = seen
    assert found["broken"] == [] and found["loaded"] == ASKED + DRAWINGS  # drawings twice
    assert found["curves"] == [True] * 5


def test_filters_show_exactly_what_fits(seen):
    found, _ = seen
    assert found["first"] == [record["image"] for record in questions()[:24]]
    for view, shown in found["views"].items():
        assert shown == expected(*view.split()), view
    lengths = {len(shown) for shown in found["views"].values()}
    assert 0 in lengths and 24 in lengths and len(lengths) > 3  # the views differ, one is empty, one is cut
    assert found["pressed"] == ["lost", "fotografia"]
    assert found["status"] == "No question fits both filters."
    assert found["all"] == ASKED


def test_a_phone_need_not_scroll_sideways(seen):
    assert seen[0]["overflow"] == 0


def test_this_browser_notices_a_broken_page(built, tmp_path):
    """The control: a missing picture and a script that throws are both seen by the checks above."""
    broken = tmp_path / "broken"
    shutil.copytree(built, broken)
    (broken / "images" / "q-005.png").unlink()
    page = (broken / "report.html").read_text().replace("<script>", "<script>undefinedName();</script><script>", 1)
    (broken / "report.html").write_text(page)
    found, console = browse(broken, tmp_path / "profile", FRAME)
    assert found["broken"] == ["images/q-005.png"]
    assert any("undefinedName" in line for line in console)
