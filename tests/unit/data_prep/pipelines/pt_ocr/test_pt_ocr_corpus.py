"""The built-in corpus, and data sets of others."""

from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.config import settings
from data_prep.pipelines.pt_ocr.corpus import document, passages
from data_prep.pipelines.pt_ocr.slots import Slots, names
from data_prep.pipelines.pt_ocr.source import annotated, built_in, prose_sentences
from data_prep.rendering.encode import encode
from data_prep.rendering.text import TextStyle, render_text
from data_prep.rendering.wrap import normalise
from data_prep.text.sentences import sentences
from nemo_amalia.utils.errors import UserError

VALUES = settings("pt_ocr")


@pytest.mark.parametrize("passage", passages(), ids=lambda passage: passage.id)
def test_the_splitter_finds_the_sentences_that_are_marked(passage):
    for seed in range(20):
        slots = Slots(Random(seed))
        lines = [" ".join(slots.fill(line).split()) for line in passage.lines]
        assert "{" not in "".join(lines)
        if passage.rows:
            assert normalise("\n".join(lines)) == "\n".join(lines)
        else:
            assert sentences(" ".join(lines)) == lines


def test_the_corpus_is_large_and_of_many_registers():
    prose = [p for p in passages() if not p.rows]
    assert len(prose) >= 60 and len({p.register for p in passages()}) >= 20


def test_no_line_is_brazilian_in_its_spelling():
    words = " ".join(line for p in passages() for line in p.lines).casefold()
    for spelling in (
        "ônibus",
        "gênero",
        "econômic",
        "fato de que",
        "trem",
        "você",
        "celular",
        "registro",
        "usuário",
        "ação direta",
    ):
        assert spelling not in words.split() and f" {spelling} " not in words


def test_a_slot_has_one_value_in_a_document_and_another_name_another():
    slots = Slots(Random(1))
    first, again, other = (slots.fill(name) for name in ("{cidade}", "{cidade}", "{cidade2}"))
    assert first == again != other
    with pytest.raises(UserError, match=r"unknown slot \{planeta\}"):
        slots.fill("{planeta}")


def test_documents_are_as_normalise_leaves_them():
    for seed in range(200):
        made = document(Random(seed), **VALUES["document"])
        assert made["text"] == normalise(made["text"])
        if made["sentences"] is not None:
            assert " ".join(made["sentences"]) == made["text"].replace("\n\n", " ")


def test_built_in_records_depend_on_seed_and_number_alone():
    ten = list(built_in(samples=10, seed=4, together=[1, 1, 1], document=VALUES["document"]))
    assert ten[:5] == list(built_in(samples=5, seed=4, together=[1, 1, 1], document=VALUES["document"]))
    assert ten != list(built_in(samples=10, seed=5, together=[1, 1, 1], document=VALUES["document"]))
    assert {len(record["documents"]) for record in ten} == {1, 2, 3}
    assert all(record["licence"] == "CC0-1.0" and "corpus.txt" in record["source"] for record in ten)


def test_names_are_portuguese():
    assert {kind: len(words) >= 50 for kind, words in names().items()} == dict.fromkeys(names(), True)
    assert not [name for words in names().values() for name in words if set(name) & set("kwy")]


def test_a_folder_of_texts_and_images(tmp_path):
    page = render_text("Uma página. Com duas frases.", TextStyle(width=500, margin=40))
    (tmp_path / "a.txt").write_text("Uma página.  Com duas frases.\n", encoding="utf-8")
    (tmp_path / "a.png").write_bytes(encode(page.image, "png"))
    (tmp_path / "b.txt").write_text("Rua Nova, 3\nBraga\n", encoding="utf-8")
    records = list(annotated(path=str(tmp_path), licence="CC0-1.0", samples=None, seed=0, together=[1]))
    assert [r["documents"][0]["id"] for r in records] == ["a.txt", "b.txt"]
    first, second = (r["documents"][0] for r in records)
    assert first["text"] == "Uma página. Com duas frases." and first["sentences"] == ["Uma página.", "Com duas frases."]
    assert first["image"] == encode(page.image, "png") and second["image"] is None and second["sentences"] is None
    assert records[1]["spare"] == first["sentences"]
    more = list(annotated(path=str(tmp_path), licence="CC0-1.0", samples=5, seed=0, together=[1]))
    assert [r["documents"][0]["id"] for r in more] == ["a.txt", "b.txt", "a.txt", "b.txt", "a.txt"]


def test_parquet_with_images_as_bytes_or_structs(tmp_path):
    image = encode(render_text("Olá.", TextStyle(width=400, margin=40)).image)
    table = pa.table({"text": ["Olá.", "Adeus."], "image": [{"bytes": image, "path": "a.jpg"}, None], "page": [1, 2]})
    pq.write_table(table, tmp_path / "ocr.parquet")
    records = list(annotated(path=str(tmp_path / "ocr.parquet"), licence="MIT", samples=None, seed=0, together=[0, 1]))
    assert [[d["image"] for d in r["documents"]] for r in records] == [[image, None]]
    assert records[0]["source"] == "ocr.parquet: ocr/0, ocr/1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Uma. Duas.\n\nTrês!", ["Uma.", "Duas.", "Três!"]),
        ("Título\n\nUma. Duas.", None),
        ("Uma linha\noutra linha.", None),
        ("", None),
    ],
)
def test_only_plain_prose_has_sentences(text, expected):
    assert prose_sentences(text) == expected


@pytest.mark.parametrize(("files", "says"), [({}, "no .txt and no .parquet"), ({"a.txt": b"\xff\xfe"}, "is not UTF-8")])
def test_a_source_that_cannot_be_read(tmp_path, files, says):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=says):
        list(annotated(path=str(tmp_path), licence="MIT", samples=None, seed=0, together=[1]))


def test_parquet_without_a_text_column_and_data_without_a_licence(tmp_path):
    pq.write_table(pa.table({"caption": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="has the columns caption: expected text"):
        list(annotated(path=str(tmp_path), licence="MIT", samples=None, seed=0, together=[1]))
    with pytest.raises(UserError, match="have no licence"):
        list(annotated(path=str(tmp_path), licence=None, samples=None, seed=0, together=[1]))
