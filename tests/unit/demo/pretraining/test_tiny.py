"""The shipped pair: plain Hugging Face folders, small, that load without a missing or a spare tensor."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, LlamaForCausalLM, SiglipVisionModel

from demo.pretraining import tiny
from demo.scenes import samples

_TEXT = "Há uma cruz em baixo à direita; lê-se «GUIA», a 25 €, e não ação 😀.\n\tDuas  linhas"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(tiny.BASE / "decoder")


def test_the_folder_is_small_and_holds_no_pickle():
    files = [path for path in tiny.BASE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 10e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja"}


@pytest.mark.parametrize(("kind", "name"), [(SiglipVisionModel, "vision"), (LlamaForCausalLM, "decoder")])
def test_the_folders_load_whole(kind, name):
    model, found = kind.from_pretrained(tiny.BASE / name, dtype=torch.float32, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_the_tokenizer_round_trips_and_is_the_one_the_script_makes(tokenizer):
    assert tokenizer.decode(tokenizer(_TEXT).input_ids) == _TEXT
    built = tiny.build_tokenizer()
    assert built.get_vocab() == tokenizer.get_vocab() and built(_TEXT).input_ids == tokenizer(_TEXT).input_ids
    assert len(tokenizer) == tiny.VOCABULARY and tiny.VOCABULARY % 16 == 0
    assert tokenizer.eos_token == tiny.END and tokenizer.pad_token == tiny.PAD
    assert tokenizer.image_token == tiny.IMAGE_TOKEN


def test_words_in_capitals_are_spelt(tokenizer):
    assert tokenizer.tokenize("XAILE") == list("XAILE")
    assert len(tokenizer.tokenize(" vermelho")) == len(tokenizer.tokenize("Vermelho")) == 1  # other words are not


def test_the_template_takes_strings_and_lists(tokenizer):
    as_text = [
        {"role": "user", "content": "<image>\nOnde está a cruz?"},
        {"role": "assistant", "content": "Em cima"},
    ]
    as_list = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Onde está a cruz?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Em cima"}]},
    ]
    texts = [tokenizer.apply_chat_template(m, tokenize=False) for m in (as_text, as_list)]
    assert texts[0] == texts[1]
    assert texts[0] == (
        "<|im_start|>user\n<image>\nOnde está a cruz?<|im_end|>\n<|im_start|>assistant\nEm cima<|im_end|>\n"
    )
    asked = tokenizer.apply_chat_template(as_list[:1], tokenize=False, add_generation_prompt=True)
    assert asked.endswith("<|im_start|>assistant\n")


def test_the_composed_model_takes_a_sample_of_each_form(tmp_path: Path):
    model, processor = tiny.make_initial_hf(tmp_path)
    assert sum(p.numel() for p in model.parameters()) <= 10_000_000
    heads = (
        tiny.TEXT["num_attention_heads"],
        tiny.TEXT["num_key_value_heads"],
        tiny.VISION["num_attention_heads"],
    )
    assert all(count % 2 == 0 for count in heads)  # TP=2
    tower = SiglipVisionModel.from_pretrained(tiny.BASE / "vision", dtype=torch.float32)
    mine = dict(model.model.vision_tower.named_parameters())
    assert all(torch.equal(p, mine[name]) for name, p in tower.named_parameters())
    tokens = {(256, 256): 88, (256, 128): 52, (128, 256): 56}
    seen = set()
    for sample in samples.eval_samples(30, 1):
        image = Image.open(io.BytesIO(sample["images"][0]))
        text = processor.apply_chat_template(sample["messages"], tokenize=False)
        made = processor(images=[image], text=text, return_tensors="pt")
        assert int((made.input_ids == processor.tokenizer.image_token_id).sum()) == tokens[image.size]
        with torch.no_grad():
            assert model(**made).logits.isfinite().all()
        seen.add(image.size)
    assert seen == set(tokens)
