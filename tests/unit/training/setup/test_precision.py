"""Files of conf/precision against Megatron Bridge's recipes, TransformerConfig and Transformer Engine's classes."""

import pytest
from launcher import launch

from nemo_amalia.config.compose import CONF, compose
from nemo_amalia.config.precision import BLOCK, RECIPES, fp8_format, fp8_scaling

PLACES = ["run_dir=runs/x", "model.checkpoint=ckpt", "data.path=data"]
FILES = sorted(path.stem for path in (CONF / "precision").glob("*.yaml"))
OF_ENGINE = {
    "delayed": "DelayedScaling",
    "tensorwise": "Float8CurrentScaling",
    "blockwise": "Float8BlockScaling",
    "mxfp8": "MXFP8BlockScaling",
}
#: TransformerConfig's fields that a recipe sets
FIELDS = ("bf16", "params_dtype", "pipeline_dtype", "fp8", "fp8_recipe", "fp8_param", "first_last_layers_bf16")
FIELDS += ("num_layers_at_start_in_bf16", "num_layers_at_end_in_bf16", "fp8_amax_history_len", "fp8_amax_compute_algo")


def land(files, words):
    """In a rank: what each file makes of a finalised provider that an FP8 run had written, and Bridge's own recipes."""
    import dataclasses

    from megatron.bridge.training.mixed_precision import MIXED_PRECISION_RECIPES, MixedPrecisionConfig
    from megatron.core.fp8_utils import get_fp8_align_size
    from megatron.core.transformer import TransformerConfig
    from tiny_model import make_provider

    from nemo_amalia.training.setup.bridge_config import data_parallel, optimizer, set_model
    from nemo_amalia.training.setup.precision import mixed_precision

    known = {f.name for f in dataclasses.fields(TransformerConfig)}
    unknown = [name for name in FIELDS if name not in known]
    found = {}
    for name in files:
        run = compose([f"precision={name}", *words])
        provider = make_provider(fp8="hybrid", fp8_recipe="blockwise", fp8_param=True, first_last_layers_bf16=True)
        provider.variable_seq_lengths = False  # make_provider's; Megatron refuses it in finalize
        set_model(run, provider)
        provider.finalize()
        found[name] = {field: str(getattr(provider, field)) for field in FIELDS}
        recipe = mixed_precision(run)
        if recipe is not None:  # as Bridge applies it
            recipe.finalize()
            adam, ddp = optimizer(run), data_parallel(run)
            recipe.setup(provider, adam, ddp)
            provider.finalize()
            found[name]["master"] = (str(adam.bf16), str(ddp.grad_reduce_in_fp32), str(ddp.fp8_param_gather))
            assert {field: str(getattr(provider, field)) for field in FIELDS}.items() <= found[name].items()
    theirs = {name: MIXED_PRECISION_RECIPES[name]() for name in RECIPES if name != "fp32"}
    own = {name: (r.fp8 and r.fp8_recipe, r.fp8) for name, r in theirs.items()}
    settable = {f.name for f in dataclasses.fields(MixedPrecisionConfig)}
    return found, unknown, own, settable, {scaling: get_fp8_align_size(scaling) for scaling in BLOCK}


@pytest.fixture(scope="module")
def landed():
    return launch(land, 1, {"files": FILES, "words": PLACES})[0]


def test_the_table_is_bridges(landed):
    _, unknown, own, settable, _ = landed
    assert unknown == []
    assert own == {name: (recipe.scaling, recipe.format) for name, recipe in RECIPES.items() if name != "fp32"}
    assert {"fp8", "fp8_recipe", "fp8_param_gather", "reuse_grad_buf_for_mxfp8_param_ag"} <= settable


def test_blocks_are_megatrons_or_larger(landed):
    aligned = landed[-1]
    assert all(BLOCK[scaling] % size == 0 for scaling, size in aligned.items())
    assert {s: size for s, size in aligned.items() if BLOCK[s] != size} == {"blockwise": 16}  # the engine wants 128


@pytest.mark.parametrize("name", FILES)
def test_values_land(landed, name):
    precision, got = compose([f"precision={name}", *PLACES]).precision, landed[0][name]
    dtype = "torch.float32" if name == "fp32" else "torch.bfloat16"
    assert (got["params_dtype"], got["pipeline_dtype"], got["bf16"]) == (dtype, dtype, str(name != "fp32"))
    assert got["fp8"] == str(fp8_format(precision)) and got["fp8_param"] == "False"
    if fp8_scaling(precision) is None:
        assert got["first_last_layers_bf16"] == "False"
        return
    assert got["fp8_recipe"].split(".")[-1] == fp8_scaling(precision)
    edges = (precision.first_layers_bf16, precision.last_layers_bf16)
    assert got["first_last_layers_bf16"] == str(any(edges))
    assert (got["num_layers_at_start_in_bf16"], got["num_layers_at_end_in_bf16"]) == tuple(map(str, edges))
    if name == "fp8_delayed":
        assert (got["fp8_amax_history_len"], got["fp8_amax_compute_algo"]) == ("1024", "max")
    assert got["master"] == ("True", "True", "False")


@pytest.mark.parametrize("name", [name for name in FILES if "fp8" in name])
def test_transformer_engine_has_the_recipe(name):
    """Where it is importable: a class of this name that takes the format. It was not, where this was written."""
    recipe = pytest.importorskip("transformer_engine.common.recipe", reason="Transformer Engine is not installed")
    precision = compose([f"precision={name}", *PLACES]).precision
    made = getattr(recipe, OF_ENGINE[fp8_scaling(precision)])(
        fp8_format=getattr(recipe.Format, fp8_format(precision).upper())
    )
    assert made.fp8_format.name.lower() == fp8_format(precision)
