"""Order of image tokens against transformers' own function; splice; micro-batches without images."""

import pytest
import torch

from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to
from nemo_amalia.model.splice import pack_image_features, splice, token_order, without_images
from nemo_amalia.utils.errors import UserError

TILE, PATCH, WIDTH = 32, 8, 6
SIDE = TILE // PATCH
GEOMETRY = ImageGeometry(TILE, PATCH, grids_up_to(12, TILE))
SIZES = [(32, 32), (100, 100), (37, 211), (500, 31), (31, 500), (1000, 3), (3, 1000), (96, 128), (127, 95)]


def transformers_packs(features, sizes, tiles, newline):
    """transformers' pack_image_features, called on a bare object that has the config it reads."""
    from types import SimpleNamespace

    from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

    config = SimpleNamespace(
        vision_config=SimpleNamespace(image_size=TILE, patch_size=PATCH),
        image_grid_pinpoints=[list(canvas) for canvas in GEOMETRY.pinpoints],
    )
    images, _ = LlavaNextModel.pack_image_features(
        SimpleNamespace(config=config), features.split(tiles), sizes, "full", image_newline=newline
    )
    return torch.cat(images)


def batch(sizes, tiling=True):
    tiles = [GEOMETRY.num_tiles(width, height, tiling) for height, width in sizes]
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(sum(tiles), SIDE * SIDE, WIDTH, generator=generator, requires_grad=True)
    return features, tiles, torch.randn(WIDTH, generator=generator, requires_grad=True)


@pytest.mark.parametrize("sizes", [[size] for size in SIZES] + [SIZES], ids=str)
@pytest.mark.parametrize("tiling", [True, False])
def test_order_is_transformers(sizes, tiling):
    """Bit-equal: both only move rows."""
    features, tiles, newline = batch(sizes, tiling)
    got = pack_image_features(features, sizes, tiles, GEOMETRY, newline)
    want = transformers_packs(features, [list(size) for size in sizes], tiles, newline)
    assert torch.equal(got, want)
    assert got.shape[0] == sum(GEOMETRY.num_tokens(width, height, tiling) for height, width in sizes)
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    mine = torch.autograd.grad((got * weights).sum(), (features, newline))
    theirs = torch.autograd.grad((want * weights).sum(), (features, newline))
    assert torch.equal(mine[0], theirs[0])
    torch.testing.assert_close(mine[1], theirs[1], rtol=1e-5, atol=1e-5)  # the newline's sum, in another order


def test_counts_that_do_not_fit():
    features, tiles, newline = batch([(100, 100)])
    with pytest.raises(UserError, match="made for another model"):
        pack_image_features(features[:-1], [(100, 100)], tiles, GEOMETRY, newline)
    with pytest.raises(UserError, match="made for another model"):
        pack_image_features(features[:, :-1], [(100, 100)], tiles, GEOMETRY, newline)
    with pytest.raises(UserError, match="differ in image_grid_pinpoints"):
        token_order(GEOMETRY, 100, 100, 3)


def test_an_image_that_stands_twice_gets_the_gradients_of_both_places():
    """Equal to the same image given twice: bit-equal tokens; sums of two numbers, which no order changes."""
    sizes, order = [(100, 100), (31, 90)], [0, 1, 0, 1]
    features, tiles, newline = batch(sizes)
    got = pack_image_features(features, sizes, tiles, GEOMETRY, newline, order)
    apart = torch.cat([features.detach()] * 2).requires_grad_()
    want = pack_image_features(apart, sizes * 2, tiles * 2, GEOMETRY, newline)
    assert torch.equal(got, want)
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    mine = torch.autograd.grad((got * weights).sum(), (features, newline))
    theirs = torch.autograd.grad((want * weights).sum(), (apart, newline))
    assert torch.equal(mine[0], theirs[0][: sum(tiles)] + theirs[0][sum(tiles) :]) and torch.equal(mine[1], theirs[1])


@pytest.mark.parametrize("order", [[0, 0], [0, 2], [0, 1, 2], [], [0, -1]])
def test_an_order_of_other_images_is_refused(order):
    features, tiles, newline = batch([(100, 100), (31, 90)])
    with pytest.raises(UserError, match="the micro-batch has 2: each must stand in the text"):
        pack_image_features(features, [(100, 100), (31, 90)], tiles, GEOMETRY, newline, order)


def test_splice_fills_placeholders_in_order():
    ids = torch.tensor([[1, 9, 9, 2], [9, 3, 4, 9]])
    text = torch.randn(4, 2, WIDTH, requires_grad=True)  # [S, B, h]
    images = torch.randn(4, WIDTH, requires_grad=True)
    out = splice(text, ids, 9, images)
    want = text.detach().clone()
    for i, (row, position) in enumerate([(0, 1), (0, 2), (1, 0), (1, 3)]):
        want[position, row] = images[i]
    assert torch.equal(out, want)
    out.sum().backward()
    assert torch.equal(images.grad, torch.ones_like(images))
    assert torch.equal(text.grad[..., 0].t() == 0, ids == 9)


@pytest.mark.parametrize("count", [3, 5])
def test_splice_refuses_another_count(count):
    with pytest.raises(UserError, match=rf"4 image placeholders and the images give {count} tokens"):
        splice(torch.zeros(4, 2, WIDTH), torch.tensor([[1, 9, 9, 2], [9, 3, 4, 9]]), 9, torch.zeros(count, WIDTH))


@pytest.mark.parametrize("value", [1.0, float("nan"), float("inf")])
def test_without_images_gives_zero_gradients(value):
    """The embeddings are untouched whatever the tower says, and what it says gets a gradient of exact zeros."""
    text = torch.randn(4, 2, WIDTH, requires_grad=True)
    encoded = torch.full((1, 16, WIDTH), value, requires_grad=True)
    newline = torch.ones(WIDTH, requires_grad=True)
    out = without_images(text, encoded, newline)
    assert torch.equal(out, text)
    out.square().sum().backward()
    assert torch.equal(encoded.grad, torch.zeros_like(encoded)) and torch.equal(newline.grad, torch.zeros(WIDTH))
    assert torch.equal(text.grad, 2 * text.detach())
