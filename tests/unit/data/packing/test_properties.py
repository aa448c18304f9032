"""What holds for every size, every list of lengths and every conversation, looked for by hypothesis.

Byte-level ChatML (chatml.py): every character of an answer is a token, so a mask that is one token off shows.
"""

import numpy as np
import torch
from chatml import chatml_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_settings import make_collator

from nemo_amalia.data.encoding.chat import ChatFormat
from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to
from nemo_amalia.data.packing.algorithms import ALGORITHMS, padded_length, shuffled
from nemo_amalia.data.packing.windows import WindowPacker
from nemo_amalia.data.samples import TokenizedSample

settings.register_profile("repeatable", derandomize=True)  # the same examples for everybody
settings.load_profile("repeatable")

TOKENIZER = chatml_tokenizer()
CHAT = ChatFormat(TOKENIZER)
END = TOKENIZER.convert_tokens_to_ids("<|im_end|>")
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="<|>"), min_size=1)
said = words.filter(str.strip)
turns = st.lists(st.tuples(words, said), min_size=1, max_size=4)
sides = st.integers(1, 5000)


@st.composite
def geometries(draw):
    patch, per_side = draw(st.integers(1, 32)), draw(st.integers(1, 28))
    tile = patch * per_side
    canvases = draw(st.lists(st.sampled_from(grids_up_to(12, tile)), min_size=1, unique=True))
    return ImageGeometry(tile, patch, tuple(canvases))


@given(geometries(), sides, sides)
@settings(max_examples=400, deadline=None)
def test_geometry(geometry, width, height):
    canvas_height, canvas_width = geometry.canvas(width, height)
    rows, columns = geometry.grid(width, height)
    fitted_height, fitted_width = geometry.fitted(width, height)
    kept_rows, kept_columns = geometry.unpadded(width, height)
    side = geometry.patches_per_side
    assert (canvas_height, canvas_width) in geometry.pinpoints
    assert (rows * geometry.tile, columns * geometry.tile) == (canvas_height, canvas_width)
    assert geometry.num_tiles(width, height, True) == 1 + rows * columns
    assert fitted_height <= canvas_height and fitted_width <= canvas_width
    assert fitted_height == canvas_height or fitted_width == canvas_width  # one side is filled
    assert 0 <= kept_rows <= rows * side and 0 <= kept_columns <= columns * side
    assert kept_rows == rows * side or kept_columns == columns * side  # padding is on one axis
    assert geometry.num_tokens(width, height, True) == side**2 + kept_rows * (kept_columns + 1)
    assert geometry.num_tokens(width, height, tiling=False) == side**2 + 1


@given(st.data(), st.sampled_from(sorted(ALGORITHMS)), st.integers(1, 20_000))
@settings(max_examples=300, deadline=None)
def test_packing(data, algorithm, capacity):
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=120))
    packs = shuffled(ALGORITHMS[algorithm](lengths, capacity), 0)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(pack and sum(lengths[index] for index in pack) <= capacity for pack in packs)


@given(st.data(), st.integers(1, 500), st.integers(1, 40), st.sampled_from([1, 2, 4]))
@settings(max_examples=200, deadline=None)
def test_windows_lose_nothing(data, capacity, window, multiple):
    capacity = padded_length(capacity, multiple)
    chunks = data.draw(st.lists(st.lists(st.integers(1, capacity), max_size=30), max_size=6))
    packer, lengths = WindowPacker(capacity, multiple, window), sum(chunks, [])
    packs = [pack for chunk in chunks for pack in packer.add(chunk)] + packer.finish()
    assert sorted(number for pack in packs for number in pack) == list(range(len(lengths)))
    assert all(sum(padded_length(lengths[n], multiple) for n in pack) <= capacity for pack in packs)


def conversation(pairs):
    return [
        message
        for question, answer in pairs
        for message in ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    ]


@given(turns, st.lists(st.tuples(words, st.text(" \n\u00a0", max_size=3)), max_size=2))
@settings(max_examples=300, deadline=None)
def test_the_loss_is_on_answers_and_their_end_alone(pairs, blank):
    ids, mask = CHAT.encode(conversation([*blank, *pairs]), [], "s")
    learned = ids[mask.astype(bool)].tolist()
    expected = [token for _, answer in pairs for token in [*TOKENIZER.encode(answer), END]]  # nothing of a blank one
    assert learned == expected


@given(st.lists(turns, min_size=1, max_size=4), st.sampled_from([1, 4]))
@settings(max_examples=150, deadline=None)
def test_a_pack_learns_what_its_samples_do_and_none_sees_another(samples, multiple):
    made = []
    for number, pairs in enumerate(samples):
        ids, mask = CHAT.encode(conversation(pairs), [], "s")
        made.append(TokenizedSample(f"s{number}", "", ids, mask, (), (), tiling=False))
    size = padded_length(sum(padded_length(len(s), multiple) for s in made) + 8, multiple)
    geometry = ImageGeometry(16, 8, grids_up_to(4, 16))
    collator = make_collator(
        seq_length=size,
        pad_token_id=CHAT.pad_token_id,
        image_token_id=CHAT.image_token_id,
        geometry=geometry,
        segment_multiple=multiple,
    )
    batch = collator(made, [[] for _ in made])
    bounds, tokens, labels, mask = batch.cu_seqlens.tolist(), batch.tokens[0], batch.labels[0], batch.loss_mask[0]
    assert int(mask.sum()) == sum(int(sample.loss_mask[1:].sum()) for sample in made)
    for sample, start, end in zip(made, bounds, bounds[1:], strict=False):
        length = len(sample.input_ids)
        assert tokens[start : start + length].tolist() == sample.input_ids.tolist()
        learned = mask[start:end].bool()
        assert labels[start:end][learned].tolist() == sample.input_ids[1:][sample.loss_mask[1:] == 1].tolist()
        assert not learned[length - 1 :].any()  # the last token of a segment predicts nothing
        assert torch.equal(batch.position_ids[0, start:end], torch.arange(end - start))
        assert (end - start) % multiple == 0
    assert np.all(np.diff(bounds) > 0) and bounds[-1] == size
