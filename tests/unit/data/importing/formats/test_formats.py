"""Real files of each format -> sample dictionaries, and each way a record can be bad, by name."""

import json

import pytest
from chatml import picture
from sources import chat, turns, write_json, write_parquet, write_tar
from stream_settings import PIXELS

from nemo_amalia.data.importing.formats import captions, llava, parquet, preference, rows
from nemo_amalia.data.importing.formats.records import REASONS, BadRecordError, ReadOptions
from nemo_amalia.utils.errors import UserError

PHOTO, OTHER = picture(60, 40, 1), picture(30, 50, 2, "PNG")


def read(form, path, **options):
    """Samples, and the reason in the place of each bad record."""
    settings, out = ReadOptions(PIXELS, **options), []
    for file in form.find(path):
        for row in form.rows(file, 0):
            try:
                out.append(form.convert(row, settings.picture_folder(file), settings))
            except BadRecordError as error:
                out.append(error.reason)
    return out


def said(messages):
    """[(role, text with <image>)]."""
    return [(m["role"], "".join(part.get("text", "<image>") for part in m["content"])) for m in messages]


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "fotos" / "a").mkdir(parents=True)
    (tmp_path / "fotos" / "a" / "1.jpg").write_bytes(PHOTO)
    (tmp_path / "fotos" / "2.png").write_bytes(OTHER)
    (tmp_path / "fotos" / "cut.jpg").write_bytes(PHOTO[:-60])
    return tmp_path / "fotos"


@pytest.mark.parametrize("lines", [False, True])
def test_llava(tmp_path, photos, lines):
    records = [
        {"id": 7, "image": "a/1.jpg", "conversations": turns(0)},
        {"id": "x", "images": ["a/1.jpg", "2.png"], "conversations": turns(1, 2)},
        {"id": "texto", "conversations": turns(2, 0)},
    ]
    one, two, text = read(llava.FORMAT, write_json(tmp_path / "m.json", records, lines), images=photos)
    assert one["messages"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "O que é isto, 0?"}]
    assert said(one["messages"])[1] == ("assistant", "É a fotografia número 0.")
    assert (one["images"], two["images"], text["images"]) == ([PHOTO], [PHOTO, OTHER], [])
    assert said(two["messages"])[0] == ("user", "<image><image>O que é isto, 1?")


BAD_LLAVA = {
    "record": {"image": "a/1.jpg"},
    "messages": {"conversations": [{"from": "narrador", "value": "Era uma vez"}]},
    "missing_image": {"image": "b.jpg", "conversations": turns(0)},
    "image": {"image": "cut.jpg", "conversations": turns(0)},
    "placeholders": {"image": "a/1.jpg", "conversations": turns(0, 2)},
    "no_answer": {"image": "a/1.jpg", "conversations": [turns(0)[0], {"from": "gpt", "value": " \n"}]},
}


def test_what_is_wrong_with_a_llava_record_has_a_name(tmp_path, photos):
    more = [
        {"image": "a/1.jpg", "conversations": turns(0, 0)},  # LLaVA's files always write <image>
        {"image": "../m.json", "conversations": turns(0)},  # out of --images
        {"image": "http://x.pt/a.jpg", "conversations": turns(0)},
        {"image": "a", "conversations": turns(0)},  # a folder
        {"image": "a/1.jpg", "conversations": turns(0)[:1]},
        {"video": "v.mp4", "conversations": turns(0)},
        "palavras",
    ]
    path = write_json(tmp_path / "m.json", [*BAD_LLAVA.values(), *more])
    assert read(llava.FORMAT, path, images=photos) == [
        *BAD_LLAVA,
        *("placeholders", "missing_image", "missing_image", "missing_image", "no_answer", "record", "record"),
    ]


def test_a_json_list_is_read_a_value_at_a_time(tmp_path, monkeypatch):
    records = [{"id": i, "texto": 'ção"]},{[ \\' * (i % 7), "n": [i, -1.5e3, None, {}]} for i in range(300)]
    records += [123456, "fim"]
    for name, options in (("flat", {}), ("wide", {"indent": 3}), ("raw", {"ensure_ascii": False})):
        (tmp_path / name).with_suffix(".json").write_text("\ufeff \n" + json.dumps(records, **options))
    for chunk in (7, 64, 1 << 18):
        monkeypatch.setattr(rows, "CHUNK", chunk)
        for path in tmp_path.glob("*.json"):
            assert list(rows.read_rows(path)) == records
            assert list(rows.read_rows(path, 290)) == records[290:]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[{"a": 1}, {"a": ', "after its record 1: .*it must be one JSON list"),
        ('[{"a": 1}, {"a" 2}]', "after its record 1: Expecting ':' delimiter"),
        ('[{"a": 1},', "after its record 1: it ends in the middle"),
    ],
)
def test_a_broken_json_list_says_where(tmp_path, text, fault):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UserError, match=f"m.json cannot be read {fault}"):
        list(rows.read_rows(tmp_path / "m.json"))


def test_a_broken_line_costs_itself(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"a": 1}\n\n{"a": \n{"a": 3}')
    first, bad, last = rows.read_rows(tmp_path / "m.jsonl")
    assert (first, bad.reason, last) == ({"a": 1}, "record", {"a": 3})
    (tmp_path / "l.json").write_bytes(b'{"a": "\xe7"}\n')
    with pytest.raises(UserError, match="l.json is not UTF-8"):
        list(rows.read_rows(tmp_path / "l.json"))


def test_endless_values_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_RECORD", 1000)
    monkeypatch.setattr(rows, "CHUNK", 100)
    (tmp_path / "m.json").write_text(json.dumps([["a" * 5000]]))
    with pytest.raises(UserError, match="after its record 0: a record may have 1,000 characters"):
        list(rows.read_rows(tmp_path / "m.json"))
    (tmp_path / "m.jsonl").write_text(json.dumps({"a": "a" * 5000}))
    with pytest.raises(UserError, match="a line of more than 1,000 characters"):
        list(rows.read_rows(tmp_path / "m.jsonl"))


def test_parquet_messages_conversations_and_texts(tmp_path, photos):
    hf = [{"messages": chat(i), "images": [{"bytes": PHOTO, "path": None}], "other": i} for i in range(7)]
    old = [{"conversations": turns(0), "image": {"bytes": None, "path": "2.png"}}]
    cauldron = [
        {"images": [{"bytes": PHOTO}, {"bytes": OTHER}], "texts": [{"user": "Que são?", "assistant": "Dois.", "n": 1}]}
    ]
    plain = [{"messages": [{"role": "user", "content": "Quê?"}, {"role": "assistant", "content": "Isto."}]}]
    plain[0]["image"] = PHOTO
    for name, content in {"hf": hf, "old": old, "cauldron": cauldron, "plain": plain}.items():
        write_parquet(tmp_path / f"{name}.parquet", content)
    form = parquet.FORMAT
    several = read(form, tmp_path / "hf.parquet")
    assert [said(s["messages"])[0][1] for s in several] == [f"<image>O que é isto, {i}?" for i in range(7)]
    assert several[0]["messages"][1]["content"] == [{"type": "text", "text": "É a fotografia número 0."}]
    (sample,) = read(form, tmp_path / "old.parquet", images=photos)
    assert sample["images"] == [OTHER]
    (sample,) = read(form, tmp_path / "cauldron.parquet")
    assert said(sample["messages"]) == [("user", "<image><image>Que são?"), ("assistant", "Dois.")]
    assert sample["images"] == [PHOTO, OTHER]
    (sample,) = read(form, tmp_path / "plain.parquet")
    assert said(sample["messages"])[0] == ("user", "<image>Quê?")
    for skip in range(8):
        assert [
            said(parquet.convert(r, tmp_path, ReadOptions(PIXELS))["messages"])[1][1][-2]
            for r in rows.read_rows(tmp_path / "hf.parquet", skip)
        ] == [str(i) for i in range(skip, 7)]


def test_bad_parquet(tmp_path):
    content = [
        {"messages": chat(0), "images": [{"bytes": b"nada"}]},
        {"messages": chat(1), "images": []},
        {"messages": None, "images": [{"bytes": PHOTO}]},
        {"messages": chat(3), "images": [None]},
    ]
    path = write_parquet(tmp_path / "a.parquet", content)
    assert read(parquet.FORMAT, path) == ["image", "placeholders", "record", "missing_image"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(UserError, match="a.parquet is not a whole parquet file .*: download it again"):
        read(parquet.FORMAT, path)
    write_parquet(path, [{"pergunta": "a"}])
    with pytest.raises(UserError, match=r"a.parquet has the columns \['pergunta'\]: none is one of"):
        read(parquet.FORMAT, path)


def test_captions_of_a_folder(tmp_path):
    top = tmp_path / "legendas"
    (top / "b").mkdir(parents=True)
    (top / "b" / "gato.jpg").write_bytes(PHOTO)
    (top / "b" / "gato.json").write_text('{"caption": " Um gato. "}')
    (top / "cao.v2.png").write_bytes(OTHER)
    (top / "cao.v2.txt").write_text("Um cão.\n")
    (top / "sem.jpg").write_bytes(PHOTO)
    (top / "texto.txt").write_text("Ninguém.")
    (top / "LEIA.md").write_text("x")
    cao, no_caption, no_picture, gato = read(captions.FORMAT, top, prompts=("Quem é?",))
    assert (no_caption, no_picture) == ("no_answer", "missing_image")
    assert said(cao["messages"]) == [("user", "<image>Quem é?"), ("assistant", "Um cão.")]
    assert said(gato["messages"])[1] == ("assistant", "Um gato.") and gato["images"] == [PHOTO]
    assert [row["id"] for row in captions.rows(top, 2)] == ["texto", "b/gato"]


def test_captions_of_tars(tmp_path):
    one = [("0/1.jpg", PHOTO), ("0/1.txt", "Um."), ("0/1.json", '{"url": 1}'), ("0/2.txt", "Só texto.")]
    two = [("3.png", OTHER), ("3.json", '{"caption": ["Três.", "Ou trois."]}'), ("4.json", "{"), ("4.jpg", PHOTO)]
    for name, members in (("00000.tar", one), ("00001.tar", two)):
        write_tar(tmp_path / name, [(n, d if isinstance(d, bytes) else d.encode()) for n, d in members])
    (tmp_path / "00000.parquet").write_bytes(b"img2dataset")  # beside its tars; not a source
    first, no_picture, third, broken = read(captions.FORMAT, tmp_path)
    assert said(first["messages"])[1] == ("assistant", "Um.") and first["images"] == [PHOTO]
    assert (no_picture, broken) == ("missing_image", "record")
    assert said(third["messages"])[1][1] in ("Três.", "Ou trois.")
    assert [row["id"] for row in captions.rows(tmp_path / "00000.tar", 1)] == ["0/2"]
    (tmp_path / "00001.tar").write_bytes((tmp_path / "00001.tar").read_bytes()[:700])
    with pytest.raises(UserError, match="00001.tar is not a whole tar"):
        read(captions.FORMAT, tmp_path / "00001.tar")


def test_captions_of_tables(tmp_path, photos):
    (tmp_path / "t.csv").write_text('file_name,caption\na/1.jpg,"Um, só."\n2.png,\n')
    (tmp_path / "t.tsv").write_text("image\ttext\n2.png\tDois.\n")
    write_parquet(tmp_path / "t.parquet", [{"image": {"bytes": PHOTO, "path": "x"}, "caption": "Três."}])
    one, empty = read(captions.FORMAT, tmp_path / "t.csv", images=photos)
    assert said(one["messages"])[1] == ("assistant", "Um, só.") and empty == "no_answer"
    (two,) = read(captions.FORMAT, tmp_path / "t.tsv", images=photos)
    (three,) = read(captions.FORMAT, tmp_path / "t.parquet")
    assert (two["images"], three["images"]) == ([OTHER], [PHOTO])


def test_the_question_depends_on_the_pair_alone(tmp_path):
    rows_ = [{"image": {"bytes": picture(20, 20, i)}, "caption": f"Número {i}."} for i in range(24)]
    first = read(captions.FORMAT, write_parquet(tmp_path / "a.parquet", rows_))
    again = read(captions.FORMAT, write_parquet(tmp_path / "b.parquet", rows_[::-1]))
    asked = [said(s["messages"])[0][1].removeprefix("<image>") for s in first]
    assert set(asked) == set(captions.PROMPTS)
    assert first == again[::-1]


def test_preferences(tmp_path):
    user, good, bad = chat(0)[0], chat(0)[1], chat(9)[1]
    forms = {
        "trl": {"prompt": [user], "chosen": [good], "rejected": [bad]},
        "whole": {"chosen": [user, good], "rejected": [user, bad]},
        "both": {"prompt": [user], "chosen": [user, good], "rejected": [user, bad]},
        "rlaif": {
            "question": "O que é isto, 0?",
            "chosen": good["content"][0]["text"],
            "rejected": bad["content"][0]["text"],
        },
        "factory": {"conversations": turns(0)[:1], "chosen": turns(0)[1], "rejected": turns(9)[1]},
    }
    for name, row in forms.items():
        row |= {"image": {"bytes": PHOTO}} if name in ("rlaif", "both") else {"images": [{"bytes": PHOTO}]}
        (sample,) = read(preference.FORMAT, write_parquet(tmp_path / f"{name}.parquet", [row]))
        assert said(sample["messages"]) == [("user", "<image>O que é isto, 0?")], name
        assert said(sample["chosen"]) == [("assistant", "É a fotografia número 0.")], name
        assert said(sample["rejected"]) == [("assistant", "É a fotografia número 9.")], name
        assert sample["images"] == [PHOTO], name


def test_bad_preferences(tmp_path):
    base = {"prompt": "Quê?", "chosen": "Sim.", "rejected": "Não."}
    content = [
        base,
        base | {"rejected": "Sim."},
        base | {"chosen": " "},
        base | {"rejected": "<image> não"},
        base | {"prompt": "<image>"},
        {"prompt": "Quê?", "chosen": "Sim."},
        {"chosen": "a", "rejected": "b"},
    ]
    good, *reasons = read(preference.FORMAT, write_json(tmp_path / "p.jsonl", content, lines=True))
    assert good["images"] == []
    assert reasons == ["same_answers", "no_answer", "placeholders", "placeholders", "record", "messages"]
    assert set(reasons) <= set(REASONS)


def test_sources_that_cannot_be_found(tmp_path):
    for path, fault in ((tmp_path / "x", "does not exist"), (tmp_path, "holds no .parquet")):
        with pytest.raises(UserError, match=fault):
            parquet.FORMAT.find(path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match="is a .txt: this format reads .parquet"):
        parquet.FORMAT.find(tmp_path / "a.txt")
    for name in ("train-00000-of-00001", "test-00000-of-00001", "validated"):
        (tmp_path / f"{name}.parquet").touch()
    with pytest.raises(UserError, match="holds the splits test, train: name the files of one"):
        parquet.FORMAT.find(tmp_path)
