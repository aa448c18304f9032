"""Random numbers that depend on a seed and a name alone: the same in every process, on every machine."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np


def choices(seed: int | str, *names: object) -> random.Random:
    """A random.Random for (seed, names). Python seeds it with the SHA-512 of the string, not with hash()."""
    return random.Random("/".join(map(str, (seed, *names))))


def arrays(seed: int | str, *names: object) -> np.random.Generator:
    """The numpy generator for (seed, names)."""
    return np.random.default_rng(choices(seed, *names).getrandbits(64))


def how_many(rng: random.Random, weights: Sequence[float]) -> int:
    """1, 2, 3, ..., drawn by the weights of each."""
    return rng.choices(range(1, len(weights) + 1), weights)[0]


def weighted(rng: random.Random, weights: dict) -> object:
    """A key of {key: weight}, drawn by weight."""
    return rng.choices(list(weights), list(weights.values()))[0]
