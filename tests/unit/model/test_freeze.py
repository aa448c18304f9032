"""What a stage trains, and one learning rate each, as Megatron's optimizer sees them.

Runs in a rank of the launcher, where Megatron is loaded.
"""

import pytest
from launcher import launch

from nemo_amalia.utils.errors import UserError

# The paper, table 2: alignment trains the connector, the later stages everything.
STAGE_MODULES = {
    "alignment": {"connector"},
    "sft": {"tower", "connector", "decoder"},
    "dpo": {"tower", "connector", "decoder"},
}


def in_rank() -> dict:
    """Everything that needs Megatron, once."""
    import torch
    import torch.distributed as dist
    from megatron.bridge.training.config import OptimizerConfigOverrideProviderContext
    from megatron.core.optimizer import OptimizerConfig, _get_param_groups
    from tiny_model import make_provider

    from nemo_amalia.config.compose import compose
    from nemo_amalia.model import freeze

    dist.init_process_group("gloo")
    provider = make_provider(trainable=["decoder"])
    provider.initialize_model_parallel(seed=0)
    (model,) = provider.provide_distributed_model(wrap_with_ddp=False)
    found = {"provided": {n: p.requires_grad for n, p in model.named_parameters()}, "stages": {}, "errors": {}}
    for stage in STAGE_MODULES:
        run = compose([f"stage={stage}", "model.checkpoint=base", "data.path=shards", "run_dir=runs/x"])
        freeze.apply_freeze(model, run.stage.trainable)
        found["stages"][stage] = {n: p.requires_grad for n, p in model.named_parameters()}

    class Wrapped(torch.nn.Module):  # as DDP and Float16Module do
        def __init__(self, module):
            super().__init__()
            self.module = module

    rates = freeze.ModuleLearningRates(
        lrs={"tower": 2e-6, "connector": 1e-3, "decoder": 1e-5}, min_lrs={"decoder": 1e-6}
    )
    config = OptimizerConfig(optimizer="adam", lr=1e-5, min_lr=0.0, weight_decay=0.1)
    overrides = rates.build_config_overrides(OptimizerConfigOverrideProviderContext(None, config, [model]))
    names = {id(p): n for n, p in model.named_parameters()}
    groups = _get_param_groups([Wrapped(Wrapped(model))], config, overrides)
    found["groups"] = [
        (group["max_lr"], group["min_lr"], group["wd_mult"], [names[id(p)] for p in group["params"]])
        for group in groups
    ]
    found["shapes"] = {n: p.dim() for n, p in model.named_parameters()}
    empty = OptimizerConfigOverrideProviderContext(None, config, [model])
    found["without rates"] = len(freeze.ModuleLearningRates().build_config_overrides(empty))
    for key, call in {
        "unknown": lambda: freeze.apply_freeze(model, ["vision"]),
        "empty": lambda: freeze.apply_freeze(model, []),
        "rate": lambda: freeze.parameter_group_overrides({"head": 1.0}),
        "minimum": lambda: freeze.parameter_group_overrides({"tower": 1e-6}, {"tower": 1e-5}),
    }.items():
        try:
            call()
        except UserError as error:
            found["errors"][key] = str(error)
    return found


@pytest.fixture(scope="module")
def found():
    return launch(in_rank, nproc=1)[0]


def part(name: str) -> str:
    prefixes = {"vision_tower": "tower", "connector": "connector", "image_newline": "connector"}
    return prefixes.get(name.split(".")[0], "decoder")


@pytest.mark.parametrize(("stage", "modules"), STAGE_MODULES.items())
def test_stage_trains_its_modules(found, stage, modules):
    for name, trains in found["stages"][stage].items():
        assert trains == (part(name) in modules and "post_layernorm" not in name), name


def test_provider_freezes(found):
    assert {part(name) for name, trains in found["provided"].items() if trains} == {"decoder"}


def test_every_module_has_its_rates(found):
    rates = {"tower": (2e-6, 0.0), "connector": (1e-3, 0.0), "decoder": (1e-5, 1e-6)}
    seen = []
    for maximum, minimum, decay, names in found["groups"]:
        for name in names:
            assert (maximum, minimum) == rates[part(name)], name
            assert decay == (0.0 if found["shapes"][name] == 1 else 1.0), name
        seen += names
    assert sorted(seen) == sorted(name for name, trains in found["stages"]["dpo"].items() if trains)
    assert found["without rates"] == 1  # Megatron's standard rule for biases and norms


def test_errors(found):
    errors = found["errors"]
    assert "['vision']" in errors["unknown"] and "tower, connector, decoder" in errors["unknown"]
    assert "at least one" in errors["empty"] and "['head']" in errors["rate"]
    assert "min_lr" in errors["minimum"] and set(errors) == {"unknown", "empty", "rate", "minimum"}
