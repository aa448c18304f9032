"""The readers behind the figures of docs/data_prep/variety.md: each text gets the variety of its source."""

import gettext
import struct

from benchmarks.variety import figures
from benchmarks.variety_corpora import Labelled, bosque, catalogues, help_pages, together

PT, BR = "O ficheiro não foi encontrado no disco.", "O arquivo não foi encontrado no disco."
SAME = "A operação terminou sem erros nem avisos."


def write_mo(path, messages):
    """A catalogue in gettext's binary form."""
    path.parent.mkdir(parents=True)
    messages = {"": "Content-Type: text/plain; charset=UTF-8\n"} | messages
    keys, values = ([text.encode() for text in column] for column in zip(*sorted(messages.items()), strict=True))
    at = 28 + 16 * len(keys)
    tables, data = b"", b""
    for column in (keys, values):
        for text in column:
            tables += struct.pack("<2I", len(text), at + len(data))
            data += text + b"\0"
    path.write_bytes(struct.pack("<7I", 0x950412DE, 0, len(keys), 28, 28 + 8 * len(keys), 0, at) + tables + data)
    with path.open("rb") as file:
        assert gettext.GNUTranslations(file).gettext("a") == messages["a"]


def test_catalogues_take_messages_that_differ_without_their_mnemonics(tmp_path):
    write_mo(tmp_path / "pt/LC_MESSAGES/x.mo", {"a": PT.replace("disco", "_disco"), "b": SAME, "c": "Curta"})
    write_mo(tmp_path / "pt_BR/LC_MESSAGES/x.mo", {"a": BR, "b": SAME, "c": "Breve"})
    assert catalogues(tmp_path) == [Labelled("pt-PT", "x", PT), Labelled("pt-BR", "x", BR)]


def test_bosque_is_labelled_by_its_source(tmp_path):
    file = tmp_path / "b.conllu"
    file.write_text(f"# text = {BR}\n# sent_id = CF1-2\n1\tO\n\n# text = {PT}\n# sent_id = CP9-1\n1\tO\n")
    assert bosque(file) == [Labelled("pt-BR", "CF1", BR), Labelled("pt-PT", "CP9", PT)]


def test_help_pages_leave_out_what_both_have(tmp_path):
    for folder, text in (("pt", PT), ("pt-BR", BR)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.html").write_text(f"<h1>{SAME}</h1><div><p>{text[:10]}<b>{text[10:]}</b></p></div>")
    assert help_pages(tmp_path) == [Labelled("pt-PT", "a.html", PT), Labelled("pt-BR", "a.html", BR)]


def test_neighbours_of_a_document_and_variety_are_joined():
    items = [Labelled(v, g, f"{v}{g}{i}") for v in ("pt-PT", "pt-BR") for g in "xy" for i in range(5)]
    joined = together(items, 2)
    assert len(joined) == 8 and joined[0] == Labelled("pt-PT", "x", "pt-PTx0\npt-PTx1")


def test_figures_count():
    items = [
        Labelled("pt-PT", "", PT),
        Labelled("pt-PT", "", BR),
        Labelled("pt-BR", "", BR),
        Labelled("pt-BR", "", SAME),
    ]
    found = figures(items)
    assert (found["precision"], found["recall"], found["false_alarms"]) == (0.5, 0.5, 0.5)
    assert (found["portuguese"], found["mistaken"], found["pt-PT"], found["pt-BR"]) == (0.5, 0.0, 2, 2)
