"""Connectors: from the tower's features to the decoder's width. A registry of plain torch modules.

Every connector maps features [T, n, v] to tokens [T, m, h]; its m tokens form a square of ``output_side`` a side,
so that unpadding stays exact. The paper took the 2-layer GELU MLP after trying linear, Q-Former and others.

Legend: T tiles, n patches of a tile (side * side), v width of the tower, m tokens of a tile, h of the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemo_amalia.utils.errors import ConfigError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # the erf one, as transformers' "gelu"
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}

CONNECTORS: dict[str, type[Connector]] = {}


@dataclass
class ConnectorConfig:
    """Which connector, and its options. Fields that a type does not name are ignored by it.

    type: a name in CONNECTORS. hidden_act: a name in ACTIVATIONS. bias: biases of the linear layers.
    shuffle_factor: pixel_shuffle_mlp joins squares of this many patches a side into one token.
    num_queries (a square number), num_layers, num_heads: of the Q-Former.
    """

    type: str = "mlp"
    hidden_act: str = "gelu"
    bias: bool = True
    shuffle_factor: int = 2
    num_queries: int = 144
    num_layers: int = 2
    num_heads: int = 16


class Connector(nn.Module):
    """Base class. ``exportable``: transformers' LLaVA-NeXT projector can express it without loss."""

    exportable = False

    def __init__(self, config: ConnectorConfig, vision_hidden: int, hidden: int, patches_per_side: int):
        super().__init__()
        self.side = self.output_side(config, patches_per_side)

    @classmethod
    def output_side(cls, config: ConnectorConfig, patches_per_side: int) -> int:
        """Tokens a side of one tile. Raises ConfigError when the options do not give a whole number."""
        return patches_per_side


def register_connector(name: str) -> Callable[[type[Connector]], type[Connector]]:
    """Class decorator: makes a Connector known as ``type=name``."""

    def register(cls: type[Connector]) -> type[Connector]:
        CONNECTORS[name] = cls
        return cls

    return register


def _find(config: ConnectorConfig) -> type[Connector]:
    if config.type not in CONNECTORS:
        raise ConfigError(f"connector type is {config.type!r}; known types: {', '.join(sorted(CONNECTORS))}")
    if config.hidden_act not in ACTIVATIONS:
        raise ConfigError(f"hidden_act is {config.hidden_act!r}; known ones: {', '.join(sorted(ACTIVATIONS))}")
    return CONNECTORS[config.type]


def build_connector(
    config: ConnectorConfig,
    vision_hidden: int,
    hidden: int,
    patches_per_side: int,
    dtype: torch.dtype = torch.float32,
) -> Connector:
    """The connector of ``config``. Raises ConfigError for an unknown type, or options that do not fit the tower."""
    return _find(config)(config, vision_hidden, hidden, patches_per_side).to(dtype)


def output_side(config: ConnectorConfig, patches_per_side: int) -> int:
    """Tokens a side that a tile of ``patches_per_side`` gives: what image_geometry must count with."""
    return _find(config).output_side(config, patches_per_side)


@register_connector("mlp")
class MLPConnector(Connector):
    """Linear, activation, linear; names as transformers' LlavaNextMultiModalProjector."""

    exportable = True

    def __init__(self, config: ConnectorConfig, vision_hidden: int, hidden: int, patches_per_side: int):
        super().__init__(config, vision_hidden, hidden, patches_per_side)
        self.linear_1 = nn.Linear(vision_hidden, hidden, bias=config.bias)
        self.linear_2 = nn.Linear(hidden, hidden, bias=config.bias)
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(self, features: Tensor) -> Tensor:
        """[T, n, v] -> [T, n, h]."""
        return self.linear_2(self.act(self.linear_1(features)))


@register_connector("linear")
class LinearConnector(Connector):
    """One linear layer (LLaVA 1)."""

    def __init__(self, config: ConnectorConfig, vision_hidden: int, hidden: int, patches_per_side: int):
        super().__init__(config, vision_hidden, hidden, patches_per_side)
        self.linear = nn.Linear(vision_hidden, hidden, bias=config.bias)

    def forward(self, features: Tensor) -> Tensor:
        """[T, n, v] -> [T, n, h]."""
        return self.linear(features)


@register_connector("pixel_shuffle_mlp")
class PixelShuffleConnector(MLPConnector):
    """Space to depth, then the MLP: a square of f*f patches becomes one token of f*f*v channels (InternVL)."""

    exportable = False

    def __init__(self, config: ConnectorConfig, vision_hidden: int, hidden: int, patches_per_side: int):
        super().__init__(config, vision_hidden * config.shuffle_factor**2, hidden, patches_per_side)
        self.factor = config.shuffle_factor

    @classmethod
    def output_side(cls, config: ConnectorConfig, patches_per_side: int) -> int:
        factor = config.shuffle_factor
        if factor < 1 or patches_per_side % factor:
            raise ConfigError(
                f"shuffle_factor is {factor} and a tile has {patches_per_side} patches a side: "
                "take a factor that divides it"
            )
        return patches_per_side // factor

    def forward(self, features: Tensor) -> Tensor:
        """[T, n, v] -> [T, n / f**2, h]."""
        tiles, _, width = features.shape
        side, factor = self.side, self.factor
        squares = features.reshape(tiles, side, factor, side, factor, width).transpose(2, 3)
        return super().forward(squares.reshape(tiles, side * side, factor * factor * width))


class _QFormerLayer(nn.Module):
    """Pre-norm: self-attention among the queries, cross-attention to the patches, MLP."""

    def __init__(self, width: int, heads: int, act: Callable[[Tensor], Tensor], bias: bool):
        super().__init__()
        self.heads, self.act = heads, act
        self.self_norm, self.cross_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.self_qkv = nn.Linear(width, 3 * width, bias=bias)
        self.self_out = nn.Linear(width, width, bias=bias)
        self.cross_q = nn.Linear(width, width, bias=bias)
        self.cross_kv = nn.Linear(width, 2 * width, bias=bias)
        self.cross_out = nn.Linear(width, width, bias=bias)
        self.fc1 = nn.Linear(width, 4 * width, bias=bias)
        self.fc2 = nn.Linear(4 * width, width, bias=bias)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        split = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        """queries [T, m, v], patches [T, n, v] -> [T, m, v]."""
        queries = queries + self.self_out(self._attend(*self.self_qkv(self.self_norm(queries)).chunk(3, -1)))
        key, value = self.cross_kv(patches).chunk(2, -1)
        queries = queries + self.cross_out(self._attend(self.cross_q(self.cross_norm(queries)), key, value))
        return queries + self.fc2(self.act(self.fc1(self.mlp_norm(queries))))


@register_connector("qformer")
class QFormerConnector(Connector):
    """Learned queries that read the patches of their tile (BLIP-2), then a projection.

    The queries of a tile stand in a square, row by row; which place a query answers for is learned, and cutting
    the padding of an image drops the queries at its rim.
    """

    def __init__(self, config: ConnectorConfig, vision_hidden: int, hidden: int, patches_per_side: int):
        super().__init__(config, vision_hidden, hidden, patches_per_side)
        if vision_hidden % config.num_heads:
            raise ConfigError(f"num_heads is {config.num_heads}: it must divide the tower's width {vision_hidden}")
        act = ACTIVATIONS[config.hidden_act]
        self.queries = nn.Parameter(torch.randn(config.num_queries, vision_hidden) * 0.02)
        self.patch_norm = nn.LayerNorm(vision_hidden)
        self.layers = nn.ModuleList(
            _QFormerLayer(vision_hidden, config.num_heads, act, config.bias) for _ in range(config.num_layers)
        )
        self.out_norm = nn.LayerNorm(vision_hidden)
        self.linear = nn.Linear(vision_hidden, hidden, bias=config.bias)

    @classmethod
    def output_side(cls, config: ConnectorConfig, patches_per_side: int) -> int:
        side = math.isqrt(max(config.num_queries, 0))
        if side < 1 or side * side != config.num_queries:
            raise ConfigError(f"num_queries is {config.num_queries}: take a square number (64, 144, 256, ...)")
        return side

    def forward(self, features: Tensor) -> Tensor:
        """[T, n, v] -> [T, num_queries, h]."""
        patches = self.patch_norm(features)
        tokens = self.queries.expand(features.shape[0], -1, -1)
        for layer in self.layers:
            tokens = layer(tokens, patches)
        return self.linear(self.out_norm(tokens))
