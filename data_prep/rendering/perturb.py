"""What happens to paper on its way to a model; whatever moves the image moves its boxes, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import cv2
import numpy as np

from data_prep.config import settings
from data_prep.rendering.page import Page, quads_of
from data_prep.rendering.paper import add_noise
from data_prep.seeds import arrays, choices
from nemo_amalia.utils.errors import ConfigError

Change = tuple[
    np.ndarray, np.ndarray | None
]  # the image, and the matrix [3, 3] that moves points (None: nothing moves)


def perturb(
    image: np.ndarray,
    name: str,
    seed: int,
    boxes: Sequence[Sequence[float]] | np.ndarray = (),
    strengths: Mapping[str, Sequence[float]] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One perturbation of an image [H, W] or [H, W, 3] uint8.

    name: one of `names()`. boxes: [N, 4] or quads [N, 4, 2] in pixels. strengths: ranges in the place of those of
    conf/data_prep/perturbations.yaml. Returns the new image (rotation and perspective give a larger one: nothing is
    cut off) and the boxes as quads [N, 4, 2] float32 in it. Raises ConfigError on an unknown name or strength.
    """
    values, quads = _strengths(name, strengths), quads_of(boxes)
    changed, matrix = CHANGES[name](image, choices(seed, "perturb", name), values)
    if matrix is not None and len(quads):
        quads = cv2.perspectiveTransform(quads.astype(np.float64), matrix).astype(np.float32)
    return changed, quads


def perturb_page(page: Page, names_in_order: Sequence[str], seed: int) -> Page:
    """A page after several perturbations, its record moved with it."""
    lines = len(page.line_quads)
    image, quads = page.image, np.concatenate([page.line_quads, page.word_quads])
    for name in names_in_order:
        image, quads = perturb(image, name, seed, quads)
    return replace(page, image=image, line_quads=quads[:lines], word_quads=quads[lines:])


def names() -> tuple[str, ...]:
    """The perturbations there are, in the order in which paper suffers them (printed, bent, seen, stored)."""
    return tuple(CHANGES)


def _strengths(name: str, given: Mapping[str, Sequence[float]] | None) -> dict[str, Sequence[float]]:
    if name not in CHANGES:
        raise ConfigError(f"unknown perturbation {name!r}: expected one of {', '.join(CHANGES)}")
    values = dict(settings("perturbations")[name])
    if unknown := set(given or {}) - set(values):
        raise ConfigError(f"{name} has no strength {sorted(unknown)[0]!r}: it has {', '.join(values)}")
    return values | dict(given or {})


def _contrast(image: np.ndarray, rng: Random, values: dict[str, Any]) -> Change:
    factor, light = rng.uniform(*values["factor"]), rng.uniform(*values["brightness"])
    table = np.clip((np.arange(256) - 128) * factor + 128 + light, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table), None


def _speckle(image: np.ndarray, rng: Random, values: dict[str, Any]) -> Change:
    dots = arrays(rng.getrandbits(62), "speckle")
    height, width = image.shape[:2]
    number = int(height * width * rng.uniform(*values["share"]))
    image = image.copy()
    image[dots.integers(0, height, number), dots.integers(0, width, number)] = 0
    image[dots.integers(0, height, number // 2), dots.integers(0, width, number // 2)] = 255
    return image, None


def _rotation(image: np.ndarray, rng: Random, values: dict[str, Any]) -> Change:
    height, width = image.shape[:2]
    turn = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(*values["degrees"]), 1), [0, 0, 1]])
    return _warp(image, turn, rng)


def _perspective(image: np.ndarray, rng: Random, values: dict[str, Any]) -> Change:
    height, width = image.shape[:2]
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    shifts = [[rng.uniform(*values["shift"]) * side for side in (width, height)] for _ in range(4)]
    inwards = np.float32([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    return _warp(image, cv2.getPerspectiveTransform(corners, corners + inwards * np.float32(shifts)), rng)


def _warp(image: np.ndarray, matrix: np.ndarray, rng: Random) -> Change:
    """The whole image moved by a matrix of points, on a canvas as large as it needs, before what lies behind it."""
    height, width = image.shape[:2]
    corners = quads_of([[0, 0, width, height]]).astype(np.float64)
    moved = cv2.perspectiveTransform(corners, matrix)[0]
    (left, top), (right, bottom) = np.floor(moved.min(0)), np.ceil(moved.max(0))
    matrix = _shift(-left, -top) @ matrix
    # Boxes are edges of pixels, OpenCV's coordinates their middles.
    centres = _shift(-0.5, -0.5) @ matrix @ _shift(0.5, 0.5)
    edge = image[:: max(height - 1, 1)].reshape(-1, *image.shape[2:]).mean(0)
    behind = edge if rng.random() < 0.5 else np.full_like(edge, rng.randint(30, 180))
    size = int(right - left), int(bottom - top)
    border = tuple(float(v) for v in np.rint(np.atleast_1d(behind)))
    changed = cv2.warpPerspective(image, centres, size, flags=cv2.INTER_LINEAR, borderValue=border)
    return changed, matrix


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def _shadow(image: np.ndarray, rng: Random, values: dict[str, Any]) -> Change:
    """A soft edge across the page, darker on one side of it."""
    height, width = image.shape[:2]
    depth, angle = rng.uniform(*values["depth"]), rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:24, 0:24] / 23 - 0.5
    along = x * np.cos(angle) + y * np.sin(angle) - rng.uniform(-0.3, 0.3)
    light = 1 - depth / (1 + np.exp(-along / rng.uniform(0.03, 0.2)))
    mask = cv2.resize(np.rint(light * 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    mask = cv2.merge([mask] * 3) if image.ndim == 3 else mask
    return cv2.multiply(image, mask, scale=1 / 255), None


def _blur(image: np.ndarray, rng: Random, values: dict[str, Any]) -> Change:
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(*values["sigma"])), None


def _motion_blur(image: np.ndarray, rng: Random, values: dict[str, Any]) -> Change:
    length, angle = rng.uniform(*values["length"]), rng.uniform(0, np.pi)
    kernel = np.zeros((9, 9), np.uint8)
    half = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(int(v) for v in np.rint((4 + s * half) * 16)) for s in (-1, 1)]
    cv2.line(kernel, *ends, 255, 1, cv2.LINE_AA, 4)
    return cv2.filter2D(image, -1, kernel.astype(np.float32) / kernel.sum()), None


def _noise(image: np.ndarray, rng: Random, values: dict[str, Any]) -> Change:
    return add_noise(image, rng.uniform(*values["sigma"]), rng.getrandbits(20)), None


def _low_resolution(image: np.ndarray, rng: Random, values: dict[str, Any]) -> Change:
    height, width = image.shape[:2]
    factor = rng.uniform(*values["factor"])
    small = cv2.resize(image, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), None


def _jpeg(image: np.ndarray, rng: Random, values: dict[str, Any]) -> Change:
    quality = rng.randint(*values["quality"])
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED), None


CHANGES: dict[str, Callable[[np.ndarray, Random, dict[str, Any]], Change]] = {
    "contrast": _contrast,
    "speckle": _speckle,
    "perspective": _perspective,
    "rotation": _rotation,
    "shadow": _shadow,
    "blur": _blur,
    "motion_blur": _motion_blur,
    "low_resolution": _low_resolution,
    "noise": _noise,
    "jpeg": _jpeg,
}
