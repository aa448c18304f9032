"""The tower against transformers' SigLIP; the provider's checks; its way through Bridge's saved config.

Runs in a rank of the launcher, where Megatron is loaded.
"""

import pytest
from launcher import launch

from nemo_amalia.utils.errors import UserError


def copy_siglip(tower, theirs, heads: int) -> None:
    """By hand, so that this does not depend on the bridge. transformers' SiglipVisionModel -> VisionTower."""
    import torch

    state = {name.removeprefix("vision_model."): value for name, value in theirs.state_dict().items()}
    ours = dict(tower.named_parameters())
    with torch.no_grad():
        for kind in ("weight", "bias"):
            ours[f"patch_embedding.{kind}"].copy_(state[f"embeddings.patch_embedding.{kind}"])
            ours[f"post_layernorm.{kind}"].copy_(state[f"post_layernorm.{kind}"])
            for i in range(len(tower.decoder.layers)):
                to, of = f"decoder.layers.{i}.", f"encoder.layers.{i}."
                q, k, v = (state[f"{of}self_attn.{x}_proj.{kind}"].unflatten(0, (heads, -1)) for x in "qkv")
                ours[f"{to}self_attention.linear_qkv.{kind}"].copy_(torch.stack([q, k, v], 1).flatten(0, 2))
                for mine, its in {
                    f"self_attention.linear_proj.{kind}": f"self_attn.out_proj.{kind}",
                    f"self_attention.linear_qkv.layer_norm_{kind}": f"layer_norm1.{kind}",
                    f"mlp.linear_fc1.layer_norm_{kind}": f"layer_norm2.{kind}",
                    f"mlp.linear_fc1.{kind}": f"mlp.fc1.{kind}",
                    f"mlp.linear_fc2.{kind}": f"mlp.fc2.{kind}",
                }.items():
                    ours[to + mine].copy_(state[of + its])
        ours["position_embedding.weight"].copy_(state["embeddings.position_embedding.weight"])


def siglip(attention: str):
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=48, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8,
        vision_use_head=False, attn_implementation=attention,
    )  # fmt: skip
    model = SiglipVisionModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + centre)
    return model


def compare_features() -> dict:
    import torch
    import torch.distributed as dist
    from tiny_model import make_provider

    dist.init_process_group("gloo")
    provider = make_provider()
    provider.initialize_model_parallel(seed=0)
    (model,) = provider.provide_distributed_model(wrap_with_ddp=False)
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found, tower = {}, model.vision_tower
    with torch.no_grad():
        for attention in ("eager", "sdpa"):
            theirs = siglip(attention)
            want = theirs(pixels, output_hidden_states=True).hidden_states[-1]
            found["unlike before"] = float((tower(pixels) - want).abs().max())
            copy_siglip(tower, theirs, heads=4)
            found[attention] = float((tower(pixels) - want).abs().max() / want.abs().max())
            for parameter in tower.parameters():
                parameter.add_(0.1)
        tower.post_layernorm.weight.fill_(float("nan"))
        found["post_layernorm is read"] = bool(tower(pixels).isnan().any())
    found["post_layernorm trains"] = tower.post_layernorm.weight.requires_grad
    found["marks"] = {
        (p.tensor_model_parallel, p.average_gradients_across_tp_domain)
        for name, p in model.named_parameters()
        if not name.startswith("language_model.")
    }
    tower.requires_grad_(False)
    found["frozen keeps a graph"] = tower(pixels).requires_grad
    return found


def test_features_are_transformers():
    """fp32: eager attention sums in another order (1e-6), sdpa is the same kernel. 1e-5 of the largest feature."""
    found = launch(compare_features, nproc=1)[0]
    assert found["eager"] < 1e-5 and found["sdpa"] < 1e-5, found
    assert found["unlike before"] > 0.1, "the comparison can fail"
    assert not found["post_layernorm is read"] and not found["post_layernorm trains"]
    assert found["marks"] == {(False, True)}
    assert not found["frozen keeps a graph"]


def check_provider() -> dict:
    import dataclasses

    import yaml
    from megatron.bridge.training.config import ConfigContainer
    from megatron.bridge.utils.instantiate_utils import instantiate, register_allowed_target_prefix
    from megatron.bridge.utils.yaml_utils import safe_yaml_representers
    from tiny_model import ConnectorConfig, VisionConfig, make_provider

    register_allowed_target_prefix("nemo_amalia")
    before = make_provider(trainable=["connector"], connector=ConnectorConfig("qformer", num_queries=16, num_heads=4))
    with safe_yaml_representers():  # as ConfigContainer.to_yaml writes run_config.yaml
        text = yaml.safe_dump(ConfigContainer._convert_value_to_dict(before))
    after = instantiate(yaml.safe_load(text))
    own = "vision connector image_token_id image_grid_pinpoints tiling tower_data_parallel trainable".split()
    found = {
        "types": [type(after).__name__, type(after.vision).__name__, type(after.connector).__name__],
        "unequal": [name for name in own if getattr(before, name) != getattr(after, name)],
        "spec": after.transformer_layer_spec is before.transformer_layer_spec,
        "geometry": before.image_geometry() == after.image_geometry(),
        "patch": before.image_geometry().patch,
        "plain": dataclasses.is_dataclass(after.vision),
        "errors": {},
    }
    for key, changes in {
        "vocabulary": dict(image_token_id=256),
        "scatter": dict(scatter_embedding_sequence_parallel=True),
        "trainable": dict(trainable=["head"]),
        "layer": dict(vision=VisionConfig(48, 3, 4, 72, 32, 8, feature_layer=-2)),
        "heads": dict(vision=VisionConfig(50, 3, 4, 72, 32, 8)),
        "side": dict(connector=ConnectorConfig("qformer", num_queries=7 * 7)),
        "many": dict(connector=ConnectorConfig("qformer", num_queries=40 * 40)),
        "canvas": dict(image_grid_pinpoints=[[40, 40]]),
    }.items():
        try:
            make_provider(**changes)
        except UserError as error:
            found["errors"][key] = str(error)
    return found


@pytest.fixture(scope="module")
def provider():
    return launch(check_provider, nproc=1)[0]


def test_provider_survives_the_saved_config(provider):
    assert provider["types"] == ["AmaliaVLModelProvider", "VisionConfig", "ConnectorConfig"]
    assert provider["unequal"] == [] and provider["spec"] and provider["plain"]


def test_geometry_follows_the_connector(provider):
    """16 queries make 4 a side: 8 pixels of a 32-pixel tile each."""
    assert provider["geometry"] and provider["patch"] == 8


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("vocabulary", "it must cover <image>"),
        ("scatter", "must be False"),
        ("trainable", "name at least one of tower, connector, decoder"),
        ("layer", "feature_layer is -2"),
        ("heads", "does not divide into 4 heads"),
        ("side", "take a number of tokens that divides the tile"),
        ("many", "gives 40 tokens a side and a tile has 32 pixels"),
        ("canvas", "not a whole number of 32-pixel tiles"),
    ],
)
def test_provider_refuses(provider, case, message):
    assert message in provider["errors"][case]
