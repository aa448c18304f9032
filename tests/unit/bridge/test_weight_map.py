"""The weight map's tables: three forms of names, and folders that lack tensors or have others."""

import pytest

from nemo_amalia.bridge.weight_map import FORMS, PORTABLE, check_keys, hf_keys, key_form
from nemo_amalia.utils.errors import UserError


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.tower)
def test_each_form_is_known_by_its_own_keys(form):
    assert key_form(hf_keys(form, 2, 3, tied=False)) == form


def test_the_names_are_those_that_transformers_writes(tmp_path):
    import tiny_hf

    names = set(tiny_hf.tensors(tiny_hf.llava_next(tmp_path)))
    form = key_form(names)
    assert form.tower == "vision_tower." and set(hf_keys(form, 2, 4, tied=False)) == names


def test_tied_models_have_no_output_of_their_own():
    both = hf_keys(PORTABLE, 1, 1, tied=False), hf_keys(PORTABLE, 1, 1, tied=True)
    assert set(both[0]) - set(both[1]) == {"language_model.lm_head.weight"}


def test_other_names_are_refused():
    with pytest.raises(UserError, match="named like transformer.h.0.attn"):
        key_form(["transformer.h.0.attn"])
    with pytest.raises(UserError, match="no tensor at all"):
        key_form([])


def test_missing_and_strange_tensors_are_named():
    keys = hf_keys(PORTABLE, 1, 1, tied=False)
    with pytest.raises(UserError, match="lacks 1 of 38 tensors, e.g. image_newline"):
        check_keys(set(keys) - {"image_newline"}, keys, "folder")
    with pytest.raises(UserError, match="1 tensors that this model has no place for, e.g. lora_A"):
        check_keys([*keys, "lora_A"], keys, "folder")
    check_keys([*keys, "vision_tower.vision_model.head.probe", "x.rotary_emb.inv_freq"], keys, "folder")
