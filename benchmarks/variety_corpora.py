"""Portuguese text whose variety is known, for benchmarks/variety.py: (variety, group, text), the group a document.

Ours in tests/data/variety; message catalogues (gettext) that Debian's and Python's packages carry in both varieties;
and, where a folder is given, the Bosque treebank (news of 1994-95) and LibreOffice's help pages.
"""

import csv
import gettext
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

OURS = Path(__file__).parents[1] / "tests" / "data" / "variety"
SYSTEM = Path("/usr/share/locale")
LEAST = 5  # words of a message or paragraph that is counted
_MNEMONIC = re.compile(r"[_&](?=\w)|(?<=\w)[_&](?=\w{2})")
_WORD = re.compile(r"[^\W\d_]{2,}")


class Labelled(NamedTuple):
    """A text, its variety (pt-PT, pt-BR or both), and the document that it is of."""

    variety: str
    group: str
    text: str


def ours(part: str) -> list[Labelled]:
    """Our own sentences (docs/data_prep/variety.md). part: dev, heldout, natural_dev or natural_heldout."""
    with (OURS / f"{part}.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [Labelled(row["variety"], row["register"], row["text"]) for row in rows]


def catalogues(folder: Path, portuguese: str = "pt", brazilian: str = "pt_BR") -> list[Labelled]:
    """Messages of the .mo files that a locale folder has in both varieties, where the two translations differ."""
    found = []
    for path in sorted((folder / portuguese / "LC_MESSAGES").glob("*.mo")):
        other = folder / brazilian / "LC_MESSAGES" / path.name
        if other.is_file():
            mine, theirs = _messages(path), _messages(other)
            for key in mine:
                if key in theirs and mine[key] != theirs[key]:
                    found += [Labelled("pt-PT", path.stem, mine[key]), Labelled("pt-BR", path.stem, theirs[key])]
    return _worth(found)


def packages() -> list[Labelled]:
    """Catalogues of Python packages that are installed here."""
    found: list[Labelled] = []
    for name, folder, portuguese in (("humanize", "locale", "pt_PT"), ("pycountry", "locales", "pt")):
        spec = find_spec(name)
        if spec and spec.submodule_search_locations:
            found += catalogues(Path(spec.submodule_search_locations[0]) / folder, portuguese)
    return found


def bosque(file: Path) -> list[Labelled]:
    """A CoNLL-U file of UD_Portuguese-Bosque: CETENFolha is pt-BR, CETEMPúblico pt-PT."""
    found, text = [], ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# text = "):
            text = line.removeprefix("# text = ")
        elif line.startswith("# sent_id = "):
            name = line.removeprefix("# sent_id = ")
            found.append(Labelled("pt-BR" if name.startswith("CF") else "pt-PT", name.split("-")[0], text))
    return _worth(found)


def help_pages(folder: Path, every: int = 1) -> list[Labelled]:
    """Paragraphs of LibreOffice's help, folder having pt/ and pt-BR/ beneath; of every so many pages, those in both."""
    found = []
    for path in sorted((folder / "pt").rglob("*.html"))[::every]:
        other = folder / "pt-BR" / path.relative_to(folder / "pt")
        if other.is_file():
            for variety, page in (("pt-PT", path), ("pt-BR", other)):
                reader = _Paragraphs()
                reader.feed(page.read_text(encoding="utf-8"))
                found += [
                    Labelled(variety, str(path.relative_to(folder / "pt")), text)
                    for text in dict.fromkeys(reader.texts)
                ]
    by_text: dict[str, set[str]] = {}
    for item in found:
        by_text.setdefault(item.text, set()).add(item.variety)
    return _worth([item for item in found if len(by_text[item.text]) == 1])


def together(items: list[Labelled], size: int) -> list[Labelled]:
    """Texts of `size` neighbours of a document and variety, as long as an answer of a conversation is."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in items:
        groups.setdefault((item.variety, item.group), []).append(item.text)
    joined = []
    for (variety, group), texts in groups.items():
        starts = range(0, len(texts) - size + 1, size)
        joined += [Labelled(variety, group, "\n".join(texts[i : i + size])) for i in starts]
    return joined


def _messages(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        catalogue = gettext.GNUTranslations(file)._catalog  # the public way asks for one message at a time
    return {
        key: _MNEMONIC.sub("", text)
        for key, text in catalogue.items()
        if isinstance(key, str) and key and isinstance(text, str)
    }


def _worth(items: list[Labelled]) -> list[Labelled]:
    """Those of LEAST words and more, each text of a variety once."""
    seen: dict[tuple[str, str], Labelled] = {}
    for item in items:
        if len(_WORD.findall(item.text)) >= LEAST:
            seen.setdefault((item.variety, item.text), item)
    return list(seen.values())


class _Paragraphs(HTMLParser):
    """Collects the text of <p> and <h1..6>."""

    def __init__(self):
        super().__init__()
        self.texts: list[str] = []
        self._open: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "p" or re.fullmatch(r"h\d", tag):
            self._open = []

    def handle_endtag(self, tag: str) -> None:
        if self._open is not None and (tag == "p" or re.fullmatch(r"h\d", tag)):
            self.texts.append(" ".join("".join(self._open).split()))
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open.append(data)


def iterate(args) -> Iterator[tuple[str, list[Labelled]]]:
    """(name, texts) of every corpus that is here, those never looked at while the rules were written last."""
    yield "ours, development", ours("dev")
    yield "ours, held out", ours("heldout")
    yield "other authors, development", ours("natural_dev")
    yield "other authors, held out", ours("natural_heldout")
    if SYSTEM.is_dir():
        messages = catalogues(SYSTEM)
        yield "catalogues a to f, development", [item for item in messages if item.group[0].lower() < "g"]
        yield "catalogues g to z", [item for item in messages if item.group[0].lower() >= "g"]
    yield "catalogues of packages", packages()
    if args.bosque:
        yield "Bosque, news of 1994-95", bosque(args.bosque)
    if args.help_pages:
        yield "LibreOffice help", help_pages(args.help_pages, args.every)
