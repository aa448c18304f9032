"""utils/page: what is escaped, what is inserted verbatim, and what a template that lacks something says."""

import subprocess
import sys

import pytest
from jinja2 import TemplateError, UndefinedError
from markup import FOREIGN, Page
from markupsafe import Markup

from nemo_amalia.utils.page import comma, percent, render

WHOLE = """{% extends "skeleton.html.j2" %}
{% from "parts.html.j2" import definitions %}
{% block title %}{{ said }}{% endblock %}
{% block style %}{{ asset("own.css") }}{% endblock %}
{% block eyebrow %}teste{% endblock %}
{% block heading %}{{ said }}{% endblock %}
{% block lead %}{{ share | percent }} of {{ number | comma }}{% endblock %}
{% block body %}<p title="{{ said }}">{{ drawn }}</p>
<dl class="tiles">{{ definitions([(said, said)]) }}</dl>
{% endblock %}
{% block footer %}{{ said }}{% endblock %}
"""
CSS = "a{{#b}c}{% d %} {color:red}\n"  # braces that Jinja would take for its own
VALUES = {"said": "Olá", "share": 0.125, "number": 12345, "drawn": Markup("<svg></svg>")}


@pytest.fixture
def template(tmp_path):
    (tmp_path / "own.css").write_text(CSS)
    (tmp_path / "own.html.j2").write_text(WHOLE)
    return tmp_path / "own.html.j2"


def test_a_page_has_the_skeleton_and_its_own(template):
    html = render(template, **VALUES)
    page = Page(html)
    assert not page.unbalanced and not page.open and html.endswith("</html>\n")
    assert CSS.strip() in html and html.index(".hero {") < html.index(CSS.strip())  # its own rules come last
    assert "<svg></svg>" in html and "12.5\N{NO-BREAK SPACE}% of 12,345" in html
    assert "prefers-color-scheme: dark" in html and "//" not in html  # nothing from elsewhere


@pytest.mark.parametrize("text", FOREIGN)
def test_values_are_text_and_never_markup(template, text):
    plain, page = (Page(render(template, **VALUES | {"said": said})) for said in ("Olá", text))
    assert page.shape() == plain.shape() and page.values("title") == [text]
    assert page.text.count(text) == 5


def test_what_is_missing_is_an_error(template):
    with pytest.raises(UndefinedError, match="'said' is undefined"):
        render(template, **{name: value for name, value in VALUES.items() if name != "said"})
    template.write_text(WHOLE.replace("{% block footer %}{{ said }}{% endblock %}", ""))
    with pytest.raises(TemplateError, match="Required block 'footer' not found"):
        render(template, **VALUES)


def test_numbers():
    assert percent(0.1234) == "12.3\N{NO-BREAK SPACE}%" and percent(0.9, 0) == "90\N{NO-BREAK SPACE}%"
    assert comma(1234567) == "1,234,567" and comma(999.6) == "1,000"


def test_importing_it_loads_no_jinja():
    """Commands that may write a page answer --help at once."""
    code = "import sys, nemo_amalia.utils.page; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
