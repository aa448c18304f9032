"""parallel.overlap_param_gather waits for a parameter in the forward hook of the module that owns it.

A parameter that the model reads without calling its module could be read before it has arrived, without a word.
"""

import pytest
from launcher import launch


def silent_owners(connectors):
    """Per connector: modules that own trained parameters and are not called in a forward pass."""
    import torch.distributed as dist
    from megatron.core import parallel_state as ps
    from tiny_model import ConnectorConfig, build, make_batch, make_provider

    dist.init_process_group("gloo")
    found = {}
    for connector in connectors:
        provider = make_provider(connector=ConnectorConfig(connector, num_queries=4, num_heads=4))
        model, called = build(provider).module, set()
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name, called=called: called.add(name))
        model(position_ids=None, **make_batch(provider))
        owners = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
        found[connector] = sorted(owners - called)
        ps.destroy_model_parallel()
    return found


CONNECTORS = ["mlp", "linear", "qformer", "pixel_shuffle_mlp"]


@pytest.fixture(scope="module")
def found():
    return launch(silent_owners, 1, {"connectors": CONNECTORS})[0]


@pytest.mark.parametrize("connector", CONNECTORS)
def test_every_parameter_is_read_by_its_own_module(found, connector):
    assert found[connector] == []
