"""HTML pages on one skeleton: jinja2 with autoescape, one file that fetches nothing.

A page is a folder of templates. Its main one starts with `{% extends "skeleton.html.j2" %}` and fills the blocks; the
macros of parts.html.j2 are there for every page. `{{ asset("page.css") }}` inserts a file of the folder verbatim.

Values belong in text and in quoted attributes, never in <style> or <script>: autoescape knows HTML alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

SKELETON = Path(__file__).parent


def percent(share: float, digits: int = 1) -> str:
    """Format a share in 0..1 as "12.3 %", with a no-break space. In templates: `share | percent`."""
    return f"{share * 100:.{digits}f}\N{NO-BREAK SPACE}%"


def comma(number: float) -> str:
    """Format a number as "12,345", without decimals. In templates: `number | comma`."""
    return f"{number:,.0f}"


def render(template: Path, /, **values: Any) -> str:
    """Render a page.

    Args:
        template: the page's main template; its folder holds whatever else the page includes.
        values: what the template names. All of it is escaped, but for markupsafe.Markup: for SVG that the caller drew.

    Returns:
        The page's HTML.

    Raises:
        jinja2.TemplateError: the template needs a value that was not given, or leaves a required block empty.
    """
    return _environment(template.parent).get_template(template.name).render(values)


@cache
def _environment(folder: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader([folder, SKELETON])
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    def asset(name: str) -> Markup:
        """Return a file of the page or the skeleton; it is no template, so braces mean nothing in it."""
        return Markup(loader.get_source(environment, name)[0].rstrip())

    environment.globals["asset"] = asset
    environment.filters.update(percent=percent, comma=comma)
    return environment
