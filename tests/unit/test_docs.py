"""What README, docs, folder READMEs and the comments of conf/ name is there: files, modules, commands, links."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from data_prep import cli as data_cli
from data_prep.config import names
from nemo_amalia import cli

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("nemo_amalia", "data_prep", "demo", "benchmarks")
TOP = "nemo_amalia data_prep demo benchmarks conf docs tests slurm scripts".split()
#: a path with a suffix, or below a folder of the repository; `data/mix.yaml` and the like are a user's own.
PATH = re.compile(r"(?<![\w/.$}{-])((?:[\w.-]+/)+[\w.-]*\w)(?![\w/*])")
SUFFIX = r"md|yaml|json|sh|def|sif|sqsh|packs|egg-info"
MODULE = re.compile(rf"(?<![\w/.-])((?:{'|'.join(PACKAGES)})(?:\.(?!(?:{SUFFIX})\b)\w+)+)")
AMALIA = re.compile(r"(?<![\w/-])amalia ((?:data )?[a-z-]+)")
AMALIA_DATA = re.compile(r"(?<![\w/-])amalia-data ([a-z_-]+)")
MAKE = re.compile(r"^(?:\$ )?make ([a-z][a-z0-9-]*)", re.MULTILINE)
#: what a page invents to show how one is written
EXAMPLES = re.compile(r"\b(?:NAME|proverbs|judge)\b")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def tracked(*patterns: str) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / line for line in lines if (ROOT / line).is_file()]


PAGES = tracked("*.md")
COMMENTED = tracked(
    "conf/*.yaml", "slurm/*.sh", "slurm/*.def", "Makefile", "pyproject.toml", "Dockerfile.nemo", "nemo_amalia/*.tsv"
)


@cache
def text_of(page: Path) -> str:
    """A page whole; of other files the comments alone."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return text
    return "\n".join(comment[1] for line in text.splitlines() if (comment := re.search(r"(?:^|\s)#(.*)", line)))


def in_code(text: str) -> str:
    """Fenced blocks and `code` alone: prose says `make sure`, too."""
    fences = re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*fences, *re.findall(r"`([^`\n]+)`", rest)])


def is_there(path: str, page: Path) -> bool:
    """From the root, from the package (as `training/run.py`), from data_prep, or beside the page."""
    return any((base / path).exists() for base in (ROOT, ROOT / "nemo_amalia", ROOT / "data_prep", page.parent))


def is_ours(path: str) -> bool:
    first, _, _ = path.partition("/")
    inside = {
        folder.name for top in ("nemo_amalia", "data_prep") for folder in (ROOT / top).iterdir() if folder.is_dir()
    }
    return first in TOP or (path.endswith(".py") and first in inside)


@cache
def top_names(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def module_is_there(dotted: str) -> bool:
    """A module, a package, or a name at the top of one; what follows that name is not looked at."""
    at = ROOT
    for part in dotted.split("."):
        if (at / part).is_dir():
            at = at / part
        elif (at / f"{part}.py").is_file():
            at = at / f"{part}.py"
        else:
            file = at if at.is_file() else at / "__init__.py"
            return file.is_file() and part in top_names(file)
    return True


def pages(params: list[Path]):
    return pytest.mark.parametrize("page", params, ids=lambda page: str(page.relative_to(ROOT)))


@pages([*PAGES, *COMMENTED])
def test_files_that_are_named_exist(page):
    found = {match[1] for match in PATH.finditer(LINK.sub("", text_of(page)))}
    missing = sorted(path for path in found if is_ours(path) and not is_there(path, page) and not EXAMPLES.search(path))
    assert not missing, f"{page.relative_to(ROOT)} names {missing}"


@pages([*PAGES, *COMMENTED])
def test_modules_that_are_named_exist(page):
    found = {match[1] for match in MODULE.finditer(text_of(page))}
    missing = sorted(
        name for name in found if not module_is_there(name.removesuffix(".py")) and not EXAMPLES.search(name)
    )
    assert not missing, f"{page.relative_to(ROOT)} names {missing}"


def commands() -> set[str]:
    """`train`, `data mix`, ...: read from the parser itself."""
    top = cli.parser(with_data=True)
    [below] = [action for action in top._actions if action.dest == "command"]
    [data] = [action for action in below.choices["data"]._actions if action.dest == "data_command"]
    return {*below.choices, *(f"data {name}" for name in data.choices)}


@pages([*PAGES, *COMMENTED])
def test_commands_that_are_named_exist(page):
    text = in_code(page.read_text(encoding="utf-8")) if page.suffix == ".md" else text_of(page)
    known, made = commands(), {*names(), *data_cli.COMMANDS, "proverbs"}
    asked = {match[1] for match in AMALIA.finditer(text)}
    wrong = [f"amalia {word}" for word in asked if word not in known and word.split()[0] not in known - {"data"}]
    wrong += [f"amalia-data {word}" for word in set(AMALIA_DATA.findall(text)) - made]
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    if page.suffix == ".md":
        wrong += [f"make {word}" for word in set(MAKE.findall(text)) - targets]
    assert not wrong, f"{page.relative_to(ROOT)} names {wrong}"


def anchors(page: Path) -> set[str]:
    """As the forges make them of headings."""
    lines = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE).splitlines()
    headings = [line.lstrip("#").strip().lower() for line in lines if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@pages(PAGES)
def test_links_lead_somewhere(page):
    wrong = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong, f"{page.relative_to(ROOT)} links to {wrong}"
