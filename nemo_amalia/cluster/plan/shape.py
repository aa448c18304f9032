"""The sizes of a model, as plain numbers: what time, communication and activations are reckoned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nemo_amalia.data.images.geometry import ImageGeometry


@dataclass(frozen=True)
class TransformerShape:
    """A stack of layers. query, key_value: widths of all heads together. gated: two matrices up, as SwiGLU."""

    layers: int
    hidden: int
    heads: int
    query: int
    key_value: int
    ffn: int
    gated: bool
    biases: bool

    @property
    def layer_matrices(self) -> int:
        """Weights of a layer's matrices, norms and biases left out: each is 2 FLOPs a token, forward."""
        attention = self.hidden * (self.query + 2 * self.key_value) + self.query * self.hidden
        return attention + self.hidden * self.ffn * (3 if self.gated else 2)


@dataclass(frozen=True)
class ModelShape:
    """Decoder, tower and connector. vocabulary: rows of the embedding. patch_values: numbers of one patch of pixels."""

    decoder: TransformerShape
    tower: TransformerShape | None
    vocabulary: int
    tied: bool
    patches: int
    patch_values: int
    geometry: ImageGeometry | None

    @property
    def connector_matrices(self) -> int:
        """Weights of the MLP connector's matrices."""
        if self.tower is None:
            return 0
        return (self.tower.hidden + self.decoder.hidden) * self.decoder.hidden

    def parameters(self) -> dict[str, int]:
        """By part, of the whole model. A bound for check_memory: `plan` counts the real module instead."""
        d, t = self.decoder, self.tower
        embedding = self.vocabulary * d.hidden
        parts = {
            "embedding": embedding,
            "layer": d.layer_matrices + 2 * d.hidden,
            "norm": d.hidden,
            "output": 0 if self.tied else embedding,
        }
        if t is None:
            return {**parts, "tower": 0, "connector": 0}
        layer = t.layer_matrices + t.query + 2 * t.key_value + t.hidden + t.ffn + t.hidden + 4 * t.hidden
        ends = self.patch_values * t.hidden + t.hidden + self.patches * t.hidden + 2 * t.hidden
        return {
            **parts,
            "tower": t.layers * layer + ends,
            "connector": self.connector_matrices + 2 * d.hidden + d.hidden,  # biases, image_newline
        }


def shape_of(config: Any) -> ModelShape:
    """Of a LlavaNextConfig."""
    text, vision = config.text_config, config.vision_config
    size = text.head_dim or text.hidden_size // text.num_attention_heads
    decoder = TransformerShape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=text.num_attention_heads,
        query=size * text.num_attention_heads,
        key_value=size * text.num_key_value_heads,
        ffn=text.intermediate_size,
        gated=True,
        biases=False,
    )
    tower = TransformerShape(
        layers=vision.num_hidden_layers,
        hidden=vision.hidden_size,
        heads=vision.num_attention_heads,
        query=vision.hidden_size,
        key_value=vision.hidden_size,
        ffn=vision.intermediate_size,
        gated=False,
        biases=True,
    )
    pinpoints = tuple((int(h), int(w)) for h, w in config.image_grid_pinpoints)
    return ModelShape(
        decoder,
        tower,
        text.vocab_size,
        bool(config.tie_word_embeddings),
        patches=(vision.image_size // vision.patch_size) ** 2,
        patch_values=vision.num_channels * vision.patch_size**2,
        geometry=ImageGeometry(vision.image_size, vision.patch_size, pinpoints),
    )
