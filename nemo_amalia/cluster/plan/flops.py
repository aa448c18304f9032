"""FLOPs of a micro-batch by part, and what of them runs forward, backward and again. Counts of a model's mathematics.

A multiply-add is 2 FLOPs. Causal attention counts the half that is computed, segment by segment of a pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nemo_amalia.cluster.plan.shape import ModelShape
from nemo_amalia.config.schema import RunConfig


@dataclass(frozen=True)
class Work:
    """Of one part: FLOPs of the forward, and how often their number runs backward and again (recompute)."""

    forward: float
    backward: float
    again: float = 0.0

    @property
    def needed(self) -> float:
        """FLOPs that the training step asks for."""
        return self.forward * (1 + self.backward)

    @property
    def done(self) -> float:
        """With what is computed twice."""
        return self.forward * (1 + self.backward + self.again)


@dataclass(frozen=True)
class Rows:
    """What a micro-batch holds. segments: tokens of each run that attention stays in. tokens: computed, padding
    included. filled: the share of them that are a sample's."""

    tokens: float
    segments: Sequence[float]
    tiles: float
    filled: float = 1.0


def work_of(run: RunConfig, shape: ModelShape, rows: Rows) -> dict[str, Work]:
    """By part: tower, connector, decoder (its matrices), attention (of the decoder), output. Of a whole micro-batch, on
    all the ranks of a replica."""
    trains = {name: name in run.stage.trainable for name in ("tower", "connector", "decoder")}
    d, recompute = shape.decoder, run.parallel.recompute
    full, attention_again = recompute == "full", recompute in ("full", "selective")
    # The gradient passes through the decoder wherever something below it learns.
    decoder = 1.0 + trains["decoder"]
    squares = sum(length**2 for length in rows.segments)
    parts = {
        "decoder": Work(2 * rows.tokens * d.layers * d.layer_matrices, decoder, float(full)),
        "attention": Work(2 * squares * d.query * d.layers, 2.0, float(attention_again)),
        "output": Work(2 * rows.tokens * shape.vocabulary * d.hidden, decoder),
    }
    if shape.tower is not None and rows.tiles:
        t, patches = shape.tower, rows.tiles * shape.patches
        encode = 2 * patches * (t.layers * t.layer_matrices + shape.patch_values * t.hidden)
        encode += 4 * patches * shape.patches * t.hidden * t.layers
        again = float(run.parallel.tower_recompute and trains["tower"])
        parts["tower"] = Work(encode, 2.0 * trains["tower"], again)
        parts["connector"] = Work(2 * patches * shape.connector_matrices, float(trains["connector"]) + trains["tower"])
    return parts
