"""Connectors: shapes, sides, registry, and the errors a user can cause."""

import pytest
import torch
import torch.nn.functional as F

from nemo_amalia.model.connectors import (
    CONNECTORS,
    Connector,
    ConnectorConfig,
    build_connector,
    output_side,
    register_connector,
)
from nemo_amalia.utils.errors import UserError

TILES, SIDE, VISION, HIDDEN = 3, 4, 12, 20


def features() -> torch.Tensor:
    return torch.randn(TILES, SIDE * SIDE, VISION, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("config", "side"),
    [
        (ConnectorConfig("mlp"), 4),
        (ConnectorConfig("linear"), 4),
        (ConnectorConfig("pixel_shuffle_mlp", shuffle_factor=2), 2),
        (ConnectorConfig("qformer", num_queries=9, num_heads=3), 3),
    ],
    ids=lambda x: x.type if isinstance(x, ConnectorConfig) else "",
)
def test_shapes_and_gradients(config, side):
    connector = build_connector(config, VISION, HIDDEN, SIDE)
    tokens = connector(features())
    assert tokens.shape == (TILES, side * side, HIDDEN)
    assert side == connector.side == output_side(config, SIDE)
    tokens.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in connector.parameters())


def test_mlp_is_transformers_projector():
    connector = build_connector(ConnectorConfig("mlp"), VISION, HIDDEN, SIDE)
    assert [name for name, _ in connector.named_parameters()] == [
        "linear_1.weight",
        "linear_1.bias",
        "linear_2.weight",
        "linear_2.bias",
    ]
    x = features()
    want = connector.linear_2(F.gelu(connector.linear_1(x)))
    assert torch.equal(connector(x), want)


def test_only_the_mlp_exports():
    assert [name for name, cls in CONNECTORS.items() if cls.exportable] == ["mlp"]


def test_pixel_shuffle_joins_neighbours():
    """A token must read exactly the f*f patches of its own square, nothing of the others."""
    connector = build_connector(ConnectorConfig("pixel_shuffle_mlp"), VISION, HIDDEN, SIDE)
    x = features().requires_grad_()
    token = 1 * connector.side + 0  # second row, first column of the 2x2 tokens
    connector(x)[0, token].sum().backward()
    seen = x.grad[0].abs().sum(-1).view(SIDE, SIDE) > 0
    want = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    want[2:4, 0:2] = True
    assert torch.equal(seen, want)
    assert x.grad[1:].abs().max() == 0


def test_qformer_tiles_do_not_mix():
    connector = build_connector(ConnectorConfig("qformer", num_queries=4, num_heads=3), VISION, HIDDEN, SIDE)
    x = features()
    other = x.clone()
    other[1] = torch.randn(SIDE * SIDE, VISION, generator=torch.Generator().manual_seed(1))
    same = (connector(x) - connector(other)).abs().amax((1, 2))
    assert same[0] == 0 and same[2] == 0 and same[1] > 1e-3


def test_dtype():
    connector = build_connector(ConnectorConfig("mlp"), VISION, HIDDEN, SIDE, dtype=torch.bfloat16)
    assert {p.dtype for p in connector.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ConnectorConfig("mpl"), "known types: linear, mlp"),
        (ConnectorConfig("mlp", hidden_act="gelus"), "known ones: gelu"),
        (ConnectorConfig("qformer", num_queries=10), "take a square number"),
        (ConnectorConfig("qformer", num_queries=0), "take a square number"),
        (ConnectorConfig("qformer", num_queries=9, num_heads=5), "must divide the tower's width 12"),
        (ConnectorConfig("pixel_shuffle_mlp", shuffle_factor=3), "take a factor that divides it"),
    ],
)
def test_errors(config, message):
    with pytest.raises(UserError, match=message):
        build_connector(config, VISION, HIDDEN, SIDE)


def test_register(monkeypatch):
    monkeypatch.setattr("nemo_amalia.model.connectors.CONNECTORS", dict(CONNECTORS))

    @register_connector("nothing")
    class Nothing(Connector):
        def forward(self, features):
            return features

    assert isinstance(build_connector(ConnectorConfig("nothing"), VISION, HIDDEN, SIDE), Nothing)
