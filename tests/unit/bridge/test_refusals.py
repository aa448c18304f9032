"""Folders and checkpoints that cannot be imported or exported: one clear line, before Megatron is even loaded."""

import json
import re

import pytest
import tiny_hf
import torch
from light_cli import run_light

from nemo_amalia.bridge import assets, checkpoints
from nemo_amalia.bridge.import_hf import import_checkpoint, parse_dtype
from nemo_amalia.bridge.supported import check_supported
from nemo_amalia.utils.errors import UserError

WRONG = {
    "nowhere": "does not exist: expected a folder on this machine that holds .*; check the path, or download .*",
    "file": "is a file: expected a folder .*",
    "empty": "holds nothing, and no config.json and no \\*.safetensors: expected .*; name that folder.*",
    "weights": "holds model.safetensors, and no config.json: expected .*; name that folder.*",
}


def refused(source, tmp_path, match):
    with pytest.raises(UserError, match=match) as caught:
        import_checkpoint(tmp_path / "out", hf=source)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_another_architecture(tmp_path):
    refused(tiny_hf.llama(tmp_path / "llama"), tmp_path, "holds a LlamaForCausalLM .* expected LlavaNextFor")


def test_no_folder_and_no_model(tmp_path):
    refused(tmp_path / "nowhere", tmp_path, "nowhere/config.json cannot be read")
    (tmp_path / "config.json").write_text("[]")
    refused(tmp_path, tmp_path, "expected an object")
    (tmp_path / "config.json").write_text('{"model_type": "no_such_model", "architectures": ["Strange"]}')
    refused(tmp_path, tmp_path, "holds \\['Strange'\\], which transformers cannot read")


@pytest.mark.parametrize("option", ["--hf", "--vision", "--llm"])
def test_a_wrong_folder_is_refused_before_anything_heavy_is_imported(option, tmp_path):
    for name in ("good", "empty", "weights"):
        (tmp_path / name).mkdir()
    for path in ("good/config.json", "good/model.safetensors", "weights/model.safetensors", "file"):
        (tmp_path / path).write_text("{}")
    other = {"--vision": ["--llm", "good"], "--llm": ["--vision", "good"], "--hf": []}[option]
    out = run_light(*(["import", option, name, *other, "--out", "out"] for name in WRONG), folder=tmp_path)
    for (name, says), line in zip(WRONG.items(), out, strict=True):
        assert re.fullmatch(f"error: {option} {name} {says}", line), line
    assert not (tmp_path / "out.log").exists()


def test_a_vocabulary_without_the_image_token(tmp_path):
    source = tiny_hf.llava_next(tmp_path / "llava")
    tiny_hf.tokenizer(image_token=False).save_pretrained(source)
    refused(source, tmp_path, "lacks <image>: a LLaVA-NeXT folder must have it")


def test_an_image_token_under_another_id(tmp_path):
    source = tiny_hf.llava_next(tmp_path / "llava")
    tiny_hf.edit_json(source / "config.json", image_token_index=7)
    refused(source, tmp_path, "image_token_index is 7 .* <image> is token 3")


def test_an_image_token_beyond_the_embeddings(tmp_path):
    config = tiny_hf.llava_config(text=tiny_hf.text_config(vocab_size=3))
    tiny_hf.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="token 3 and the embeddings of .* have 3 rows"):
        assets.check_image_token(tmp_path, config)


def test_a_folder_without_a_tokenizer(tmp_path):
    source = tiny_hf.llava_next(tmp_path / "llava")
    for path in source.glob("token*"):
        path.unlink()
    refused(source, tmp_path, "has no tokenizer that transformers can load .*: add tokenizer.json")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy is 'default'"),
        ({"vision_feature_layer": -2}, "vision_feature_layer is -2"),
        ({"projector_hidden_act": "tanh"}, "projector_hidden_act is 'tanh'"),
        ({"text": {"attention_bias": True}}, "text_config.attention_bias is True"),
        ({"text": {"hidden_act": "gelu"}}, "text_config.hidden_act is 'gelu'"),
        ({"text": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}}, "is 'dynamic'"),
        (
            {
                "text": {
                    "rope_parameters": {
                        "rope_type": "llama3",
                        "rope_theta": 1e4,
                        "factor": 8.0,
                        "low_freq_factor": 2.0,
                        "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 8192,
                    },
                    "max_position_embeddings": 65536,
                }
            },
            "rope_parameters.low_freq_factor is 2.0",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_configs_that_the_model_cannot_express(changes, match):
    text = tiny_hf.text_config(**changes.pop("text", {}))
    with pytest.raises(UserError, match=match):
        check_supported(tiny_hf.llava_config(text=text, **changes))


def test_a_yarn_with_an_attention_factor_of_its_own():
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "attention_factor": 1.5}
    with pytest.raises(UserError, match="attention_factor is 1.5"):
        check_supported(tiny_hf.llava_config(text=tiny_hf.text_config(rope_parameters=rope)))


def test_a_tower_that_is_no_siglip():
    from transformers import CLIPVisionConfig

    with pytest.raises(UserError, match="vision_config.model_type is 'clip_vision_model'"):
        check_supported(tiny_hf.llava_config(vision=CLIPVisionConfig()))


def test_what_to_import_is_said_once(tmp_path):
    for given in ({}, {"vision": "a"}, {"llm": "a"}, {"hf": "a", "llm": "b"}, {"hf": "a", "vision": "b", "llm": "c"}):
        with pytest.raises(UserError, match="either hf, or vision and llm"):
            import_checkpoint(tmp_path / "out", **given)
    with pytest.raises(UserError, match="dtype is 'int8'"):
        parse_dtype("int8")
    assert parse_dtype("bf16") is torch.bfloat16 and parse_dtype(None) is None


@pytest.fixture
def checkpoint(tmp_path):
    """What a run leaves: a tracker, an iteration as torch.distributed.checkpoint writes it, assets."""
    from torch.distributed.checkpoint import FileSystemWriter, save

    iteration = tmp_path / "checkpoint" / "iter_0000012"
    save({"weight": torch.zeros(1000)}, storage_writer=FileSystemWriter(iteration), no_dist=True)
    for name in ("run_config.yaml", "metadata.json", "common.pt"):
        (iteration / name).write_text("{}")
    (tmp_path / "checkpoint" / "latest_checkpointed_iteration.txt").write_text("12")
    (tmp_path / "checkpoint" / "hf").mkdir()
    (tmp_path / "checkpoint" / "hf" / "config.json").write_text("{}")
    return tmp_path / "checkpoint"


def test_a_whole_checkpoint_is_found_by_either_name(checkpoint):
    iteration = checkpoint / "iter_0000012"
    assert checkpoints.latest_iteration(checkpoint) == checkpoints.latest_iteration(iteration) == iteration
    assert checkpoints.assets_of(checkpoint) == checkpoints.assets_of(iteration) == checkpoint / "hf"


def test_a_missing_checkpoint(checkpoint, tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint folder"):
        checkpoints.latest_iteration(tmp_path / "nowhere")
    (checkpoint / "latest_checkpointed_iteration.txt").write_text("13")
    with pytest.raises(UserError, match="names iter_0000013, which is not beside it"):
        checkpoints.latest_iteration(checkpoint)
    (checkpoint / "latest_checkpointed_iteration.txt").unlink()
    with pytest.raises(UserError, match="is no checkpoint \\(no latest_checkpointed_iteration.txt\\)"):
        checkpoints.latest_iteration(checkpoint)
    (checkpoint / "hf" / "config.json").unlink()
    with pytest.raises(UserError, match="has no hf folder"):
        checkpoints.assets_of(checkpoint)


@pytest.mark.parametrize("name", ["run_config.yaml", ".metadata", "__0_0.distcp"])
def test_a_checkpoint_that_lacks_a_file(name, checkpoint):
    (checkpoint / "iter_0000012" / name).unlink()
    with pytest.raises(UserError, match=f"is torn \\(no {name}\\)"):
        checkpoints.latest_iteration(checkpoint)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_checkpoint_whose_file_is_cut_short(name, checkpoint):
    path = checkpoint / "iter_0000012" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="is torn \\((.metadata cannot be read|__0_0.distcp has [0-9,]+ bytes of)"):
        checkpoints.latest_iteration(checkpoint)


def test_portable_files_are_what_both_releases_read(tmp_path):
    rope = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    config = tiny_hf.llava_config(text=tiny_hf.text_config(rope_parameters=rope))
    tiny_hf.llava_next(tmp_path, config=config)
    assets.make_portable(tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    assert text["rope_theta"] == 1e4 and text["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    again = assets.load_config(tmp_path).text_config.rope_parameters
    assert {name: again[name] for name in rope} == rope
