import numpy as np
import pytest
import torch
from chatml import picture
from stream_settings import make_collator

from nemo_amalia.data.samples import PackedBatch, TokenizedSample
from nemo_amalia.utils.errors import UserError

IMAGE, PAD = 7, 0


def sample(key, length, sizes=(), geometry=None, tiling=True):
    """`length` text tokens 100, 101, ..., the images' tokens in front, the last three learned."""
    images = sum(geometry.num_tokens(w, h, tiling) for w, h in sizes) if sizes else 0
    ids = np.concatenate([np.full(images, IMAGE), 100 + np.arange(length)]).astype(np.int32)
    mask = np.zeros(len(ids), dtype=np.uint8)
    mask[-3:] = 1
    return TokenizedSample(key, "t", ids, mask, tuple(picture(w, h) for w, h in sizes), tuple(sizes), tiling)


def tiles(sizes, geometry, tiling=True):
    return [torch.rand(geometry.num_tiles(w, h, tiling), 3, 32, 32) for w, h in sizes]


@pytest.fixture
def make(geometry):
    def build(**changes):
        settings = {"seq_length": 64, "pad_token_id": PAD, "image_token_id": IMAGE, "geometry": geometry}
        return make_collator(**(settings | changes))

    return build


def test_a_pack(make, geometry):
    sizes = [(40, 20)]
    first, second = sample("a", 5), sample("b", 6, sizes, geometry)
    seq_length = len(first) + len(second) + 20
    images = tiles(sizes, geometry)
    batch = make(seq_length=seq_length)([first, second], [[], images])
    used = len(first) + len(second)
    assert batch.tokens.shape == batch.labels.shape == batch.loss_mask.shape == (1, seq_length)
    assert batch.tokens[0, :used].tolist() == [*first.input_ids, *second.input_ids]
    assert (batch.tokens[0, used:] == PAD).all()
    # Labels are the next token of the same segment, and the loss is on the three learned tokens of each.
    assert batch.labels[0, :5].tolist() == [101, 102, 103, 104, PAD]
    assert batch.loss_mask[0, :5].tolist() == [0, 1, 1, 1, 0]
    assert batch.loss_mask[0, used - 4 :].tolist() == [1, 1, 1, 0] + [0] * 20
    assert batch.loss_mask.sum() == 6
    bounds = batch.cu_seqlens.tolist()
    assert bounds == [0, 5, used, seq_length] and batch.cu_seqlens.dtype == torch.int32
    assert batch.max_seqlen == len(second)
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        assert batch.position_ids[0, start:end].tolist() == list(range(end - start))
    assert torch.equal(batch.tiles, images[0])
    assert batch.image_sizes.tolist() == [[20, 40]]  # (height, width)
    assert batch.tiles_per_image.tolist() == [geometry.num_tiles(40, 20, True)]
    assert (batch.keys, batch.num_samples, batch.num_tokens) == (["a", "b"], 2, used)
    assert batch.num_image_tokens == geometry.num_tokens(40, 20, True)


def test_segments_are_padded_for_context_parallelism(make):
    batch = make(segment_multiple=8)([sample("a", 5), sample("b", 9)], [[], []])
    assert batch.cu_seqlens.tolist() == [0, 8, 24, 40, 56, 64]
    assert batch.tokens[0, :9].tolist() == [100, 101, 102, 103, 104, PAD, PAD, PAD, 100]
    assert batch.loss_mask.sum() == 6
    assert batch.position_ids[0, :10].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]


def test_long_padding_is_cut_so_that_it_never_is_the_longest_segment(make):
    batch = make()([sample("a", 10)], [[]])
    assert batch.cu_seqlens.tolist() == [0, 10, 20, 30, 40, 50, 60, 64] and batch.max_seqlen == 10


def test_a_batch_without_images_has_one_zero_tile(make):
    batch = make()([sample("a", 5)], [[]])
    assert batch.tiles.shape == (1, 3, 32, 32) and not batch.tiles.any()
    assert batch.tiles_per_image.shape == (0,) and batch.image_sizes.shape == (0, 2)


def test_unpacked_rows(make):
    batch = make(packing=False, micro_batch_size=3, seq_length=16)([sample("a", 5), sample("b", 16)], [[], []])
    assert batch.tokens.shape == (3, 16) and batch.cu_seqlens is None and batch.max_seqlen == 16
    assert batch.tokens[0].tolist() == [100, 101, 102, 103, 104] + [PAD] * 11
    assert batch.labels[1, -2:].tolist() == [115, PAD]
    assert batch.position_ids.tolist() == [list(range(16))] * 3
    assert not batch.loss_mask[2].any() and (batch.tokens[2] == PAD).all()  # the missing row is all padding


def test_no_tiling(make, geometry):
    sizes = [(100, 30)]
    images = tiles(sizes, geometry, tiling=False)
    batch = make()([sample("a", 5, sizes, geometry, tiling=False)], [images])
    assert batch.tiles_per_image.tolist() == [1] and batch.num_image_tokens == 17


def test_disagreements_are_refused_with_both_numbers(make, geometry):
    good = sample("pt/9", 5, [(40, 20)], geometry)
    short = TokenizedSample("pt/9", "t", good.input_ids[1:], good.loss_mask[1:], (), good.image_sizes, True)
    need = geometry.num_tokens(40, 20, True)
    images = tiles([(40, 20)], geometry)
    collate = make(seq_length=128)
    with pytest.raises(UserError, match=rf"sample pt/9 need {need} tokens \[{need}\] and its text has {need - 1} "):
        collate([short], [images])
    with pytest.raises(UserError, match="image 0 of sample pt/9 .* gave tiles .* geometry expects"):
        collate([good], [[images[0][:1]]])
    with pytest.raises(UserError, match="has 1 images and 0 were decoded"):
        collate([good], [[]])


def test_what_does_not_fit_is_refused(make):
    with pytest.raises(UserError, match="needs 70 tokens and holds 64"):
        make()([sample("a", 35), sample("b", 35)], [[], []])
    with pytest.raises(UserError, match="2 samples, the longest of 5 tokens, do not fit into 1 rows"):
        make(packing=False)([sample("a", 5), sample("b", 5)], [[], []])
    with pytest.raises(UserError, match="at least one sample"):
        make()([], [])
    with pytest.raises(UserError, match=r"seq_length 64 is not a multiple of 6 .*use 66"):
        make(segment_multiple=6)
    with pytest.raises(UserError, match="micro_batch_size is 2 with packing"):
        make(micro_batch_size=2)


def test_to_dict_and_back(make):
    batch = make()([sample("a", 5)], [[]])
    values = batch.to_dict()
    assert PackedBatch.from_dict(values).tokens is batch.tokens
    assert batch.map_tensors(lambda t: t.double()).tokens.dtype == torch.float64
    del values["keys"]
    with pytest.raises(UserError, match=r"missing: \['keys'\]"):
        PackedBatch.from_dict(values)
