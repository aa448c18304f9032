import pytest

from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to
from nemo_amalia.utils.errors import UserError

PAPER = ImageGeometry(384, 16, grids_up_to(12, 384))


def test_twelve_tiles_give_thirty_five_grids():
    grids = grids_up_to(12, 384)
    assert len(grids) == len(set(grids)) == 35
    assert (384, 384) in grids and (12 * 384, 384) in grids and (3 * 384, 4 * 384) in grids
    assert all(h // 384 * (w // 384) <= 12 for h, w in grids)


def test_costs_measured_in_facts():
    # Hugging Face LLaVA-NeXT: 12x1 costs 7,776 tokens and 3x4 7,560. 576 of them are the thumbnail.
    assert PAPER.grid(384, 12 * 384) == (12, 1)
    assert PAPER.num_tokens(384, 12 * 384, True) == 7776
    assert PAPER.grid(4 * 384, 3 * 384) == (3, 4)
    assert PAPER.num_tokens(4 * 384, 3 * 384, True) == 7560
    assert PAPER.num_tiles(4 * 384, 3 * 384, True) == 13


def test_no_tiling_is_the_thumbnail_and_one_newline():
    assert PAPER.num_tokens(4000, 10, tiling=False) == 577
    assert PAPER.num_tiles(4000, 10, tiling=False) == 1


def test_unpadding_cuts_the_same_from_both_ends():
    for width, height in ((1000, 700), (333, 1234), (5000, 3), (1, 4000), (384, 384)):
        rows, columns = PAPER.unpadded(width, height)
        grid_rows, grid_columns = PAPER.grid(width, height)
        assert (grid_rows * 24 - rows) % 2 == 0 and (grid_columns * 24 - columns) % 2 == 0
        assert 0 <= rows <= grid_rows * 24 and 0 <= columns <= grid_columns * 24


def test_a_sliver_may_keep_no_row_of_the_grid():
    # 24 rows of features, none kept: transformers counts the thumbnail alone, and so do we.
    rows, columns = PAPER.unpadded(100_000, 1)
    assert rows == 0 and PAPER.num_tokens(100_000, 1, True) == 576


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((384, 16, ()), "pinpoints is empty"),
        ((384, 16, ((384, 400),)), "not a whole number of 384-pixel tiles"),
        ((8, 16, ((8, 8),)), "at least one patch"),
    ],
)
def test_impossible_geometries_are_refused(arguments, text):
    with pytest.raises(UserError, match=text):
        ImageGeometry(*arguments)


def test_bad_arguments_are_refused():
    with pytest.raises(UserError, match="max_tiles is 0"):
        grids_up_to(0, 384)
    with pytest.raises(UserError, match="0x5 pixels"):
        PAPER.num_tokens(0, 5, True)


def test_equal_geometries_are_equal_and_hash_alike():
    other = ImageGeometry(384, 16, [list(p) for p in grids_up_to(12, 384)])
    assert other == PAPER and hash(other) == hash(PAPER)
