"""Samples: every answer is right by the renderer's record, and the check notices one that is not."""

import copy
import json
from collections import Counter
from random import Random

import pytest

from data_prep.config import settings
from data_prep.engine import Drop, Run
from data_prep.pipelines.pt_ocr.formats import FORMATS
from data_prep.pipelines.pt_ocr.pictures import draw
from data_prep.pipelines.pt_ocr.samples import check, converse, make_sample
from data_prep.pipelines.pt_ocr.source import annotated_document, built_in
from data_prep.pipelines.pt_ocr.turns import phrasings
from data_prep.pipelines.pt_ocr.verify import fault
from data_prep.rendering.encode import encode
from data_prep.rendering.text import TextStyle, render_text
from nemo_amalia.data.shards.write import sample_parts

VALUES = settings("pt_ocr")
PLAIN = VALUES["pictures"] | {"perturbed": VALUES["pictures"]["perturbed"] | {"share": 0}}


def records(number: int, seed: int = 0, together=(1, 1, 1)):
    return built_in(samples=number, seed=seed, together=list(together), document=VALUES["document"])


@pytest.fixture(scope="module")
def samples() -> list[dict]:
    return [make_sample(r, Random(n), VALUES["pictures"], VALUES["asking"]) for n, r in enumerate(records(150))]


def test_every_answer_is_verified(samples):
    assert [fault(sample) for sample in samples] == [None] * len(samples)


def test_tasks_formats_arrangements_and_kinds_all_occur(samples):
    facts = [facts for sample in samples for facts in sample["record"]["turns"]]
    tasks, formats = Counter(f["task"] for f in facts), {(f["task"], f["format"]) for f in facts}
    assert set(tasks) == set(FORMATS) and min(tasks.values()) >= 10
    assert len(formats) >= 0.8 * sum(map(len, FORMATS.values()))
    assert {s["record"]["arrangement"] for s in samples} == {"one", "images", "row", "column", "grid"}
    verdicts = Counter(f["kind"] is None for f in facts if f["task"] == "hallucination")
    assert 0.3 < verdicts[True] / verdicts.total() < 0.7
    assert len({f["kind"] for f in facts if f.get("kind")}) == 5
    perturbed = {name for s in samples for page in s["record"]["pages"] for name in page["perturbed"]}
    assert len(perturbed) == 10


def test_a_wrong_answer_is_noticed(samples):
    """Each answer is spoiled in turn: its first letter, and its digits."""
    for sample in samples[:60]:
        for number, facts in enumerate(sample["record"]["turns"]):
            spoiled = copy.deepcopy(sample)
            part = spoiled["messages"][2 * number + 1]["content"][0]
            old = part["text"]
            if facts["task"] == "hallucination":
                other = next(
                    s["messages"][2 * n + 1]["content"][0]["text"]
                    for s in samples
                    for n, f in enumerate(s["record"]["turns"])
                    if f["task"] == "hallucination"
                    and f["format"] == facts["format"]
                    and (f["kind"] is None) != (facts["kind"] is None)
                )
                part["text"] = other
            elif facts["task"] == "count":
                said = FORMATS["count"][facts["format"]].read(old)
                part["text"] = FORMATS["count"][facts["format"]].write(said + 1, Random(0))
            else:
                letter = next(i for i in range(len(old) // 2, len(old)) if old[i].isalpha())
                part["text"] = old[:letter] + ("e" if old[letter] != "e" else "a") + old[letter + 1 :]
            assert fault(spoiled) is not None, (facts, old, part["text"])


def test_a_wrong_image_record_is_noticed(samples):
    for sample in samples[:20]:
        spoiled = copy.deepcopy(sample)
        for page in spoiled["record"]["pages"]:
            page["lines"] = ("Outra coisa.", *page["lines"][1:])
        assert fault(spoiled) is not None
    missing = copy.deepcopy(samples[0])
    missing["images"] = []
    assert "placeholders" in fault(missing)
    assert "is not json" in fault(_answered(samples[0], "texto", "json"))


def _answered(sample: dict, answer: str, form: str) -> dict:
    spoiled = copy.deepcopy(sample)
    spoiled["messages"] = spoiled["messages"][:2]
    spoiled["messages"][1]["content"][0]["text"] = answer
    spoiled["record"]["turns"] = [{"task": "transcription", "format": form, "target": 0}]
    return spoiled


def test_a_sentence_that_the_source_marks_otherwise_is_not_verified():
    record = next(r for r in records(50, together=[1]) if r["documents"][0]["sentences"])
    record["documents"][0]["sentences"] = [" ".join(record["documents"][0]["sentences"])] * 1 + []
    merged = record["documents"][0]["sentences"]
    record["documents"][0]["sentences"] = [merged[0][:20], merged[0][20:]]
    asking = VALUES["asking"] | {"tasks": {"sentence": 1}}
    sample = make_sample(record, Random(0), PLAIN, asking)
    assert fault(sample) is not None
    with pytest.raises(Drop, match="not_verified"):
        check(sample, Run(0, "check", "k"))


def test_a_step_gives_the_same_bytes_for_the_same_seed():
    record = next(iter(records(1))) | {"key": "pt_ocr-000000000"}
    run = lambda seed: Run(seed, "converse", record["key"])  # noqa: E731
    one, two, other = (
        check(converse(record, run(s), pictures=VALUES["pictures"], asking=VALUES["asking"]), run(s)) for s in (1, 1, 2)
    )
    assert one == two and one["images"] != other["images"]
    parts = sample_parts(one["key"], one)
    assert len(parts) == 1 + len(one["images"])
    assert json.loads(parts[0][1])["language"] == "pt-PT" and "record" not in one


def test_transcription_comes_last(samples):
    for sample in samples:
        last = [f["task"] in ("transcription", "all_documents") for f in sample["record"]["turns"]]
        assert last == sorted(last)


def test_an_annotated_image_stays_as_it_is():
    page = render_text("Um recorte de jornal. Tem duas frases.", TextStyle(width=500, margin=40))
    document = annotated_document("a", "Um recorte de jornal. Tem duas frases.", encode(page.image, "png"))
    record = {"documents": [document], "spare": ["Outra frase qualquer."], "source": "x", "licence": "MIT"}
    for seed in range(10):
        sample = make_sample(record, Random(seed), PLAIN | {"png": 1}, VALUES["asking"])
        assert fault(sample) is None
    from io import BytesIO

    import numpy as np
    from PIL import Image

    shown = np.asarray(Image.open(BytesIO(sample["images"][0])).convert("L"))
    assert np.array_equal(shown, page.image)


@pytest.mark.parametrize(
    ("text", "image", "reason"),
    [
        ("漢字", None, "glyph"),
        ("", None, "empty"),
        ("Olá <image>.", None, "placeholder"),
        ("Olá.", b"no image", "image"),
    ],
)
def test_what_cannot_be_shown_is_dropped_by_name(text, image, reason):
    record = {"documents": [annotated_document("a", text, image)], "spare": [], "source": "x", "licence": "MIT"}
    with pytest.raises(Drop) as caught:
        make_sample(record, Random(0), VALUES["pictures"], VALUES["asking"])
    assert caught.value.reason == reason


def test_nothing_to_ask_is_dropped():
    record = {"documents": [annotated_document("a", "Olá", None)], "spare": [], "source": "x", "licence": "MIT"}
    with pytest.raises(Drop, match="nothing_to_ask"):
        make_sample(record, Random(0), VALUES["pictures"], VALUES["asking"] | {"tasks": {"sentence": 0, "none": 0}})


def test_every_wording_can_be_filled():
    words = {
        "de": "da imagem",
        "em": "na imagem",
        "ordinal": "terceira",
        "numero": 3,
        "quantos": "dois",
        "candidato": "x",
    }
    said = phrasings()
    for wordings in said["tasks"].values():
        assert len(wordings) >= 5 and len(set(wordings)) == len(wordings)
        for wording in wordings:
            assert "{" not in wording.format(**words)
    for task, formats in FORMATS.items():
        assert set(said["formats"][task]) == set(formats)
        assert all(len(how) >= 2 for how in said["formats"][task].values())


def test_pages_are_drawn_from_several_families():
    record = next(iter(records(1, together=[0, 0, 1])))
    drawn = draw(record["documents"], Random(3), VALUES["pictures"])
    assert len(drawn.pages) == 3 and [p.text() for p in drawn.pages] == [d["text"] for d in record["documents"]]
