"""Bags of words stand where a picture's tokens will stand, say what lies there, and ask nothing."""

import random

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from demo.pretraining import bags, tiny
from demo.pretraining import decoder as decoder_training
from demo.scenes.scenes import FORMS, Scene, Thing
from nemo_amalia.data.images.geometry import ImageGeometry

_TREE = Thing((1, 1), "cruz", "azul")


@pytest.mark.parametrize("form", FORMS)
def test_there_is_one_bag_for_every_image_token(form):
    width, height, _, _ = FORMS[form]
    geometry = ImageGeometry(tiny.TILE, tiny.PATCH, tuple((h, w) for h, w in tiny.PINPOINTS))
    scene = Scene(form, (Thing((0, 0), "círculo", "verde"),))
    found = bags.scene_bags(scene, random.Random(0), grid=True)
    assert len(found) == geometry.num_tokens(width, height, True)
    assert bags.scene_bags(scene, random.Random(0), grid=False) == found[:16]


def test_a_bag_says_what_lies_in_its_patch(monkeypatch):
    monkeypatch.setattr(bags, "_MISSED", 0.0)
    scene = Scene("quadrada", (_TREE,), "LIMA", 0)
    found = bags.scene_bags(scene, random.Random(0), grid=True)
    thumbnail, tiles = found[:16], [found[16 + row * 9 : 16 + row * 9 + 9] for row in range(8)]
    assert thumbnail[:4] == [
        f"{nth} letra {letter} texto em cima"
        for nth, letter in zip(("primeira", "segunda", "terceira", "quarta"), "LIMA", strict=True)
    ]
    assert thumbnail[8:12] == ["fundo", "fundo"] + ["cruz azul em baixo à direita"] * 2
    assert tiles[0] == ["letra L"] * 2 + ["letra I"] * 2 + ["letra M"] * 2 + ["letra A"] * 2 + ["\n"]
    assert tiles[7] == ["fundo"] * 4 + ["cruz azul"] * 4 + ["\n"]


def test_checks_are_true_and_ask_nothing():
    rng = random.Random(1)
    scene = Scene("quadrada", (_TREE,))
    said = {line for _ in range(200) for line in bags.checks(scene, rng)}
    assert {"Presença de formas azuis:\nSim", "Presença de formas verdes:\nNão"} <= said
    assert {"Verdade de a cruz ser azul:\nSim", "Verdade de a cruz ser preta:\nNão"} <= said
    assert "Presença de formas azuis:\nNão" not in said and not any("?" in line for line in said)


def test_a_placeholder_is_the_sum_of_its_words():
    tokenizer = AutoTokenizer.from_pretrained(tiny.BASE / "decoder")
    model = LlamaForCausalLM(tiny.text_config(tokenizer))
    tokens = torch.tensor([[5, tokenizer.image_token_id, 6, tokenizer.image_token_id]])
    made = decoder_training.embed(model, tokens, tokenizer.image_token_id, [[7, 8, 9, 9], [10]])
    table = model.get_input_embeddings().weight
    assert torch.equal(made[0, 0], table[5]) and torch.equal(made[0, 3], table[10])
    assert torch.allclose(made[0, 1], (table[7] + table[8] + 2 * table[9]) / 2)
