"""The generators: same seed, same samples, whoever makes them; the documented fields; pictures that open."""

import io

from PIL import Image

from demo import variety
from demo.scenes import drawings, samples


def test_the_same_seed_gives_the_same_samples_and_another_does_not():
    for make in (samples.alignment_samples, samples.sft_samples, samples.pair_samples, samples.eval_samples,
                 samples.drawing_questions):  # fmt: skip
        assert list(make(12, 3)) == list(make(12, 3))
        assert [s["images"] for s in make(12, 3)] != [s["images"] for s in make(12, 4)]


def test_a_pool_makes_what_one_process_makes(monkeypatch):
    alone = list(samples.sft_samples(24, 9, workers=1))
    monkeypatch.setattr(samples, "_POOL_FROM", 10)
    assert list(samples.sft_samples(24, 9, workers=2)) == alone


def test_fields_and_pictures():
    keys = set()
    for sample in [
        *samples.alignment_samples(40, 0),
        *samples.sft_samples(40, 0),
        *samples.eval_samples(40, 0),
    ]:
        keys.add(sample["key"])
        assert sample["source"] in samples.SHARES or sample["key"].startswith("desenho")
        assert sample["language"] == "pt-PT" or (sample["language"] == "pt-BR" and sample["source"] == "desenhos")
        parts = [part for message in sample["messages"] for part in message["content"]]
        assert sum(part["type"] == "image" for part in parts) == len(sample["images"]) == 1
        assert [m["role"] for m in sample["messages"]] == ["user", "assistant"] * (len(sample["messages"]) // 2)
        image = Image.open(io.BytesIO(sample["images"][0]))
        assert image.size in {(256, 256), (256, 128), (128, 256)} and image.format in {"PNG", "JPEG"}
    assert len(keys) == 120


def test_an_evaluation_sample_is_one_question():
    made = list(samples.eval_samples(60, 0))
    for sample in made:
        assert sample["prompt"] == sample["messages"][:1] and len(sample["messages"]) == 2
        assert sample["prompt"][0]["content"][-1]["text"] == sample["question"]
        assert sample["messages"][1]["content"][0]["text"] == sample["answer"]
    scenes = [sample["kind"] for sample in made if sample["source"] == "cenas"]
    assert len(scenes) == 48 and all(scenes.count(kind) == 8 for kind in set(scenes)) and len(set(scenes)) == 6


def test_stage_2_has_answers_about_drawings_in_both_varieties():
    drawn = [sample for sample in samples.sft_samples(400, 0) if sample["source"] == "desenhos"]
    assert len(drawn) == 400 // samples.DRAWINGS_EVERY
    languages = [sample["language"] for sample in drawn]
    assert 0.5 < languages.count("pt-BR") / len(drawn) < 0.9 and set(languages) == set(drawings.VARIETIES)
    for sample in drawn:
        found = variety.forms_of(sample["messages"][-1]["content"][0]["text"])
        counts = (found.portuguese, found.brazilian)
        assert counts == ((2, 0) if sample["language"] == "pt-PT" else (0, 2))


def test_a_pair_has_one_answer_of_each_variety():
    for pair in samples.pair_samples(60, 0):
        (question,), (chosen,), (rejected,) = pair["messages"], pair["chosen"], pair["rejected"]
        assert question["role"] == "user" and chosen["role"] == rejected["role"] == "assistant"
        found = [variety.forms_of(answer["content"][0]["text"]) for answer in (chosen, rejected)]
        assert [(f.portuguese, f.brazilian) for f in found] == [(2, 0), (0, 2)]


def test_a_question_about_a_drawing_has_the_european_answer():
    records = [q | {"prediction": q["answer"]} for q in samples.drawing_questions(60, 0)]
    assert {record["source"] for record in records} == {"desenhos"}
    assert variety.forms(records) == variety.Forms(portuguese=120, answers=60) and variety.named(records) == (60, 60)
