"""A SigLIP and a Llama folder become a LLaVA-NeXT folder that transformers loads; what does not fit is refused."""

import json

import pytest
import tiny_hf
import torch

from nemo_amalia.bridge import vocabulary
from nemo_amalia.bridge.combine_hf import combine
from nemo_amalia.utils.errors import UserError

TEXT_ONLY_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def combined(tmp_path, vision=None, llm=None, **changes):
    vision = vision or tiny_hf.siglip_vision(tmp_path / "vision")
    llm = llm or tiny_hf.llama(tmp_path / "llm")
    out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
    out.mkdir()
    return combine(vision, llm, out, **{"connector_seed": 0} | changes)


def test_transformers_loads_it_whole(tmp_path):
    from transformers import AutoProcessor, LlavaNextForConditionalGeneration

    out = combined(tmp_path, shard_bytes=50_000)
    model, info = LlavaNextForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    processor = AutoProcessor.from_pretrained(out)
    assert processor.image_token_id == model.config.image_token_index == 259
    assert processor.tokenizer.eos_token == "<|im_end|>" and model.generation_config.eos_token_id == 2
    assert model.config.text_config.vocab_size == tiny_hf.VOCABULARY  # there was a spare row
    assert model.config.image_grid_pinpoints == processor.image_processor.image_grid_pinpoints
    assert len(model.config.image_grid_pinpoints) == 35


@pytest.mark.parametrize("make", [tiny_hf.siglip_vision, tiny_hf.siglip_both])
def test_tower_and_decoder_are_copied(make, tmp_path):
    vision = make(tmp_path / "vision")
    tensors = tiny_hf.tensors(combined(tmp_path, vision=vision))
    theirs = {n.removeprefix("vision_model."): t for n, t in tiny_hf.tensors(vision).items()}
    tower = {n.removeprefix("vision_tower.vision_model."): t for n, t in tensors.items() if "vision_tower" in n}
    assert len(tower) == 37 and all(torch.equal(theirs[name], tensor) for name, tensor in tower.items())
    decoder = {n.removeprefix("language_model."): t for n, t in tensors.items() if "language_model" in n}
    assert all(torch.equal(t, decoder[n]) for n, t in tiny_hf.tensors(tmp_path / "llm").items())


def test_the_connector_is_drawn_from_the_seed(tmp_path):
    one, same, other = (tiny_hf.tensors(combined(tmp_path, connector_seed=seed)) for seed in (0, 0, 1))
    differing = {name for name in one if not torch.equal(one[name], other[name])}
    fresh = {"image_newline", "multi_modal_projector.linear_1.weight", "multi_modal_projector.linear_2.weight"}
    assert differing == fresh and all(torch.equal(one[name], same[name]) for name in one)
    weight = one["multi_modal_projector.linear_2.weight"]
    # 4,096 draws: their spread is within 5 % of the true one, but once in 10,000 seeds.
    assert weight.std().item() == pytest.approx(tiny_hf.INITIALIZER_RANGE, rel=0.05)
    assert not one["multi_modal_projector.linear_1.bias"].any()


def test_embeddings_grow_when_there_is_no_row_for_the_image_token(tmp_path):
    llm = tiny_hf.llama(tmp_path / "full", vocab_size=259)  # 3 special tokens and 256 bytes
    out = combined(tmp_path, llm=llm)
    tensors, before = tiny_hf.tensors(out), tiny_hf.tensors(llm)
    for name, theirs in (("lm_head.weight", "lm_head.weight"), ("model.embed_tokens.weight",) * 2):
        grown, source = tensors["language_model." + name], before[theirs]
        assert grown.shape == (384, 64) and torch.equal(grown[:259], source)
        torch.testing.assert_close(grown[259:], source.mean(0).expand(125, -1))
    assert json.loads((out / "config.json").read_text())["text_config"]["vocab_size"] == 384


def test_a_decoder_that_knows_the_image_token_keeps_its_id(tmp_path):
    out = combined(tmp_path, llm=tiny_hf.llama(tmp_path / "llm", image_token=True))
    assert json.loads((out / "config.json").read_text())["image_token_index"] == 3


def test_dtype_is_the_decoders_or_the_one_asked_for(tmp_path):
    llm = tiny_hf.llama(tmp_path / "half", dtype=torch.bfloat16)
    assert {t.dtype for t in tiny_hf.tensors(combined(tmp_path, llm=llm)).values()} == {torch.bfloat16}
    out = combined(tmp_path, llm=llm, dtype=torch.float32)
    assert {t.dtype for t in tiny_hf.tensors(out).values()} == {torch.float32}


def with_template(tmp_path, template):
    llm = tiny_hf.llama(tmp_path / "llm")
    (llm / "chat_template.jinja").write_text(template)
    return llm


def test_plain_chatml_learns_to_take_images(tmp_path):
    out = combined(tmp_path, llm=with_template(tmp_path, TEXT_ONLY_CHATML))
    assert (out / "chat_template.jinja").read_text() == vocabulary.CHATML


def test_another_template_without_images_is_refused(tmp_path):
    llm = with_template(tmp_path, "{% for m in messages %}[{{ m['role'] + m['content'] }}]{% endfor %}")
    with pytest.raises(UserError, match="is not plain ChatML"):
        combined(tmp_path, llm=llm)


def test_a_missing_template_is_refused(tmp_path):
    llm = tiny_hf.llama(tmp_path / "llm")
    (llm / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        combined(tmp_path, llm=llm)


def test_an_eos_token_that_ends_no_turn_is_refused(tmp_path):
    llm = tiny_hf.llama(tmp_path / "llm")
    tiny_hf.edit_json(llm / "tokenizer_config.json", eos_token="<pad>")
    with pytest.raises(UserError, match="eos_token of .* is '<pad>'"):
        combined(tmp_path, llm=llm)


def test_swapped_folders_are_refused(tmp_path):
    vision, llm = tiny_hf.siglip_vision(tmp_path / "vision"), tiny_hf.llama(tmp_path / "llm")
    with pytest.raises(UserError, match="holds a 'llama'; expected a fixed-resolution SigLIP"):
        combined(tmp_path, vision=llm, llm=llm)
    with pytest.raises(UserError, match="holds a 'siglip_vision_model'; expected a LlamaForCausalLM"):
        combined(tmp_path, vision=vision, llm=vision)


def test_a_tower_without_its_tensors_is_refused(tmp_path):
    vision, other = tiny_hf.siglip_vision(tmp_path / "vision"), tiny_hf.llama(tmp_path / "llm")
    (vision / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="has no SigLIP vision tensors"):
        combined(tmp_path, vision=vision, llm=other)


def test_a_decoder_that_lacks_layers_is_refused(tmp_path):
    llm = tiny_hf.llama(tmp_path / "llm")
    tiny_hf.edit_json(llm / "config.json", num_hidden_layers=5)
    with pytest.raises(UserError, match="lacks 9 tensors that its config.json promises"):
        combined(tmp_path, llm=llm)
