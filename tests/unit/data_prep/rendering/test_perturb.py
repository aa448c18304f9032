"""Perturbations: what is marked in an image is found where the returned box says."""

import numpy as np
import pytest

from data_prep.rendering.page import bounds
from data_prep.rendering.perturb import names, perturb, perturb_page
from data_prep.rendering.text import TextStyle, render_text
from nemo_amalia.utils.errors import UserError

BOX = (150, 90, 230, 130)


def marked(colour: bool) -> np.ndarray:
    image = np.full((300, 420, 3) if colour else (300, 420), 255, np.uint8)
    image[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 0
    return image


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("name", names())
def test_a_marked_region_is_where_its_box_says(name, colour):
    for seed in range(5):
        image, quads = perturb(marked(colour), name, seed, [BOX])
        assert image.dtype == np.uint8 and image.ndim == (3 if colour else 2)
        grey = image.mean(axis=2) if colour else image.astype(float)
        corners = quads[0].astype(np.float64)
        assert (corners >= 0).all() and (corners <= [image.shape[1], image.shape[0]]).all()
        inner = corners.mean(0) + (corners - corners.mean(0)) * 0.85
        outer = corners.mean(0) + (corners - corners.mean(0)) * 1.2
        inside, ring = polygon(inner, grey.shape), polygon(outer, grey.shape) & ~polygon(corners, grey.shape, 3)
        assert np.median(grey[inside]) < np.median(grey[ring]) - 60, (name, seed)
        dark = grey < (np.median(grey[inside]) + np.median(grey[ring])) / 2
        assert dark[inside].mean() > 0.97 and dark[ring].mean() < 0.03, (name, seed)


@pytest.mark.parametrize("name", ["rotation", "perspective"])
def test_the_middle_of_a_region_moves_with_its_box(name):
    """To a twentieth of a pixel: half a pixel is what mistaking edges for middles costs."""
    for seed in range(5):
        image, quads = perturb(marked(False), name, seed, [BOX])
        near = bounds(quads)[0].astype(int) + [-6, -6, 6, 6]
        part = 255.0 - image[near[1] : near[3], near[0] : near[2]]
        y, x = np.mgrid[near[1] : near[3], near[0] : near[2]] + 0.5
        seen = np.array([(x * part).sum(), (y * part).sum()]) / part.sum()
        assert np.abs(seen - centroid(quads[0].astype(np.float64))).max() < 0.05, (name, seed)


def centroid(corners: np.ndarray) -> np.ndarray:
    """Of the area of a polygon."""
    following = np.roll(corners, -1, axis=0)
    cross = corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]
    return ((corners + following) * cross[:, None]).sum(0) / (3 * cross.sum())


def polygon(corners: np.ndarray, shape: tuple[int, ...], grow: int = 0) -> np.ndarray:
    """Pixels whose middles lie in a convex polygon (clockwise), grown by some pixels."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.ones(shape[:2], bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside &= ((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) / np.hypot(x1 - x0, y1 - y0) >= -grow
    return inside


@pytest.mark.parametrize("name", names())
def test_the_same_seed_is_the_same_image_and_another_is_not(name):
    page = render_text("Uma página com letras. " * 20, TextStyle(width=600, margin=40, size=20))
    one, again, other = (perturb_page(page, [name], seed).image for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert one.shape != other.shape or not np.array_equal(one, other)
    assert not np.array_equal(one, page.image)


def test_words_stay_where_the_ink_is_after_all_of_them():
    page = render_text("Nenhuma palavra se perde no caminho. " * 12, TextStyle(width=700, margin=60, size=26))
    for seed in range(3):
        there = perturb_page(page, names(), seed)
        assert there.text() == page.text() and len(there.word_quads) == len(page.words)
        background = np.median(there.image)
        for box in bounds(there.word_quads).astype(int):
            assert there.image[box[1] : box[3] + 1, box[0] : box[2] + 1].min() < background - 25


def test_no_box_is_no_box():
    assert perturb(marked(False), "rotation", 1)[1].shape == (0, 4, 2)


def test_strengths_may_be_given():
    image, _ = perturb(marked(False), "noise", 1, strengths={"sigma": (0, 0)})
    assert np.array_equal(image, marked(False))
    straight, quads = perturb(marked(False), "rotation", 1, [BOX], strengths={"degrees": (0, 0)})
    assert np.array_equal(straight, marked(False)) and tuple(bounds(quads)[0]) == BOX


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: perturb(marked(False), "fire", 1), "unknown perturbation 'fire': expected one of contrast"),
        (
            lambda: perturb(marked(False), "blur", 1, strengths={"radius": (1, 2)}),
            "blur has no strength 'radius': it has sigma",
        ),
    ],
)
def test_errors_say_what_was_seen(make, says):
    with pytest.raises(UserError, match=says):
        make()
