"""Held-out means held out: nothing of the evaluation is in what the base or a stage is made of."""

import hashlib
import random

import pytest

from demo.errors import DemoError
from demo.pretraining import bags
from demo.pretraining import tower as tower_training
from demo.scenes import drawings, photos, prose, samples, scenes, split, words


def _digests(made) -> set[str]:
    return {hashlib.sha256(image).hexdigest() for sample in made for image in sample["images"]}


@pytest.fixture
def drawn(monkeypatch):
    """What the generators draw, as they draw it: (layouts, strings, photographs) since the last `clear`."""
    seen = {"layouts": set(), "strings": set(), "photos": set(), "drawings": set()}
    random_scene, write, crop, paint = scenes.random_scene, scenes.write, photos.crop, drawings.paint

    def scene_seen(*args, **kwargs):
        scene = random_scene(*args, **kwargs)
        seen["layouts"].add(scene.key)
        return scene

    def write_seen(draw, text, *args):
        seen["strings"].add(text.casefold())
        return write(draw, text, *args)

    def crop_seen(photo, *args):
        seen["photos"].add(photo.name)
        return crop(photo, *args)

    def paint_seen(drawing, rng):
        seen["drawings"].add(drawing.key)
        return paint(drawing, rng)

    monkeypatch.setattr(drawings, "paint", paint_seen)
    monkeypatch.setattr(scenes, "random_scene", scene_seen)
    monkeypatch.setattr(prose, "random_scene", scene_seen)
    monkeypatch.setattr(bags, "random_scene", scene_seen)
    monkeypatch.setattr(scenes, "write", write_seen)
    monkeypatch.setattr(photos, "crop", crop_seen)

    def take() -> dict[str, set[str]]:
        taken = {name: set(found) for name, found in seen.items()}
        for found in seen.values():
            found.clear()
        return taken

    return take


def test_no_image_layout_string_or_photograph_is_on_both_sides(drawn):
    train_images = _digests(samples.alignment_samples(150, 0)) | _digests(samples.sft_samples(150, 0))
    for index in range(150):
        tower_training.scene_record(index, 0)
    rng = random.Random(0)
    for _ in range(300):
        prose.scene_text(rng)
        bags.document(rng)
    train_images |= _digests(samples.pair_samples(100, 0))
    train = drawn()
    eval_images = _digests(samples.eval_samples(200, 0)) | _digests(samples.drawing_questions(60, 0))
    held_out = drawn()
    assert len(eval_images) > 150 and not train_images & eval_images
    for name in ("layouts", "strings", "photos", "drawings"):
        assert train[name] and held_out[name], f"nothing was drawn: {name}"
        assert not train[name] & held_out[name], name
    # Each drawn string and layout is on its side by the hash as well, so other seeds cannot overlap either.
    assert {split.side_of(x) for x in train["layouts"] | train["strings"] | train["drawings"]} == {"train"}
    # A rejected draw (a layout of the other side) never leaves random_scene, so this holds for eval too.
    assert {split.side_of(x) for x in held_out["layouts"] | held_out["strings"] | held_out["drawings"]} == {"eval"}


def test_the_side_ignores_case_and_the_order_of_things():
    a, b = scenes.Thing((0, 0), "círculo", "azul"), scenes.Thing((1, 1), "cruz", "preto")
    assert scenes.Scene("quadrada", (a, b)).key == scenes.Scene("quadrada", (b, a)).key
    assert split.side_of("Lima") == split.side_of("LIMA")


def test_the_other_side_is_refused():
    word = words.words("eval")[0]
    split.require_side(word, "eval")
    with pytest.raises(DemoError, match="lies on the eval side"):
        split.require_side(word, "train")


def test_both_sides_have_enough_words():
    assert len(words.words("train")) > 150 and len(words.words("eval")) > 20
    assert not set(words.words("train")) & set(words.words("eval"))
    assert not set(words.names("train")) & set(words.names("eval"))
