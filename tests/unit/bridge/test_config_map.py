"""LlavaNextConfig -> provider -> LlavaNextConfig, and what import and export refuse once Megatron is loaded.

One process does it all: its results come back as plain values.
"""

import pytest
import tiny_hf
from launcher import launch

from nemo_amalia.utils.errors import UserError

ROPES = {
    "default": {"rope_type": "default", "rope_theta": 20000.0},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 1024,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
    },
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}


def there_and_back():
    """Fields that a config and what became of it by way of the provider differ in, for each kind of positions."""
    from types import SimpleNamespace

    from nemo_amalia.bridge.config_map import differences
    from nemo_amalia.bridge.llava_next import LlavaNextBridge

    found = {}
    for name, rope in ROPES.items():
        text = tiny_hf.text_config(rope_parameters=rope, max_position_embeddings=65536)
        config = tiny_hf.llava_config(text=text, image_grid_pinpoints=tiny_hf.grids(4))
        provider = LlavaNextBridge().provider_bridge(SimpleNamespace(config=config))
        back = LlavaNextBridge.megatron_to_hf_config(provider)
        ours = {**config.to_dict(), "dtype": "float32", "architectures": ["LlavaNextForConditionalGeneration"]}
        found[name] = differences(ours, back)
        found[name + " broken"] = differences({**ours, "image_token_index": 9}, back)
    return found


def test_a_config_survives_the_way_there_and_back():
    [found] = launch(there_and_back, 1)
    for name in ROPES:
        extra = ["text_config.rope_parameters.truncate: None and True"] if name == "yarn" else []
        assert found[name] == extra, name
        assert found[name + " broken"] == [*extra, "image_token_index: 9 and 3"]


def attempts(work):
    """Messages of the errors that follow from each bad input, by name."""
    import json
    import shutil
    from pathlib import Path

    from safetensors.torch import save_file

    from nemo_amalia.bridge.export_hf import export_checkpoint
    from nemo_amalia.bridge.import_hf import import_checkpoint

    work, found = Path(work), {}

    def attempt(name, function, *arguments, **keywords):
        try:
            function(*arguments, **keywords)
        except UserError as error:
            found[name] = str(error)

    source = tiny_hf.llava_next(work / "source")
    lacking = shutil.copytree(source, work / "lacking")
    tensors = tiny_hf.tensors(source)
    del tensors["vision_tower.post_layernorm.bias"]
    save_file(tensors, lacking / "model.safetensors")
    attempt("lacking tensor", import_checkpoint, work / "no", hf=lacking)

    good = import_checkpoint(work / "good", hf=source)
    attempt("occupied output", export_checkpoint, good, source)
    other = tiny_hf.llava_next(work / "other", config=tiny_hf.llava_config(text=tiny_hf.text_config(head_dim=32)))
    attempt("other assets", export_checkpoint, good, work / "no", hf_assets=other)

    wide = shutil.copytree(source, work / "wide")
    config = json.loads((wide / "config.json").read_text())
    config["text_config"]["vocab_size"] = 640
    (wide / "config.json").write_text(json.dumps(config))

    def edited(name, edit):
        """A copy of the checkpoint with another run_config.yaml; Bridge reads each path once."""
        copy = shutil.copytree(good, work / name)
        run_config = next(copy.glob("iter_*/run_config.yaml"))
        run_config.write_text(edit(run_config.read_text()))
        return copy

    qformer = edited("qformer", lambda text: text.replace("type: mlp", "type: qformer"))
    attempt("other connector", export_checkpoint, qformer, work / "no")
    wider = edited("wider", lambda text: text.replace("vocab_size: 320", "vocab_size: 640"))
    attempt("other shape", export_checkpoint, wider, work / "no", hf_assets=wide)
    llama = "model:\n  _target_: megatron.bridge.models.gpt_provider.GPTModelProvider\n  vocab_size: 8\n"
    llama += "  num_layers: 1\n  hidden_size: 8\n  num_attention_heads: 1\n"
    attempt("other model", export_checkpoint, edited("llama", lambda _: llama), work / "no")
    assert not (work / "no").exists()
    return found


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    [found] = launch(attempts, 1, {"work": str(tmp_path_factory.mktemp("attempts"))})
    return found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lacking tensor", "lacks 1 of 81 tensors, e.g. vision_tower.post_layernorm.bias"),
        ("occupied output", "exists and is not empty"),
        ("other assets", "belongs to another model than the checkpoint (text_config.head_dim: 32 and 16)"),
        ("other connector", "the connector is 'qformer'"),
        ("other shape", "its run_config.yaml says (640, 64)"),
        ("other model", "holds a GPTModelProvider; expected an AmaliaVLModelProvider"),
    ],
)
def test_bad_input_is_one_clear_line(messages, name, words):
    assert words in messages[name] and "\n" not in messages[name]
