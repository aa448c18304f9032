"""Logits of the Megatron model and of transformers' LlavaNextForConditionalGeneration with the same weights, in fp32.

The issue asks for 1e-4. Logits reach 7 here; both sides differ in the order of sums only, so 2e-5 is asked for. A tile
in the wrong place, a newline too few, a row too many or a wrong weight moves logits by 1e-2 and more (the last test
shows it). transformers itself checks that the placeholders are as many as its features, so each case also tests
ImageGeometry's count. Pixels are random tiles: decoding and resizing have tests of their own.
"""

import pytest
import tiny_hf
from launcher import launch
from logit_samples import IMAGE_ID, hf_logits, sample
from tiny_megatron import Layout, model_of

TOLERANCE = 2e-5

# (width, height) of the images of a sample. Every grid of up to 12 tiles, filled to the pixel.
GRIDS = [[(width, height)] for height, width in tiny_hf.grids()]
# Padding above and below, left and right, odd sizes; slivers whose padding is all but everything, or everything.
EXTREMES = [[size] for size in [(50, 90), (91, 47), (500, 40), (40, 500), (1000, 11), (11, 1000), (1000, 1), (3, 3)]]
SEVERAL = [[(64, 64), (33, 120)], [(20, 20), (300, 40), (40, 300)], [(96, 128), (96, 128)]]
CASES = {"grids": GRIDS, "extremes": EXTREMES, "several": SEVERAL, "text": [[]]}


def hf_logits_without_tiling(model, ids, pixels, sizes, tiles):
    """transformers' way for an image of one tile.

    Its forward always counts a grid beside the thumbnail (image_size_to_num_patches), but pack_image_features, its
    own public method, has a branch for a single patch: features, then one image_newline. So: its tower, projector,
    pack_image_features, and its forward on inputs_embeds.
    """
    import torch

    inner = model.model
    hidden = inner.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    features = inner.multi_modal_projector(hidden).split(1)
    packed, _ = model.pack_image_features(features, torch.tensor(sizes), "full", image_newline=inner.image_newline)
    embeddings = model.get_input_embeddings()(ids)
    mask = (ids == IMAGE_ID)[..., None].expand_as(embeddings)
    return model(inputs_embeds=embeddings.masked_scatter(mask, torch.cat(packed))).logits


def differences(folder, cases, layout=None, tiling=True, break_newline=False):
    """Largest difference of the logits for each case; with ``layout``, of this rank's part of the vocabulary."""
    import torch
    from megatron.core import parallel_state
    from transformers import LlavaNextForConditionalGeneration

    reference = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    theirs = hf_logits if tiling else hf_logits_without_tiling
    layout, found = layout or Layout(), {}
    with model_of(folder, layout, tiling=tiling) as (_, (model,)), torch.no_grad():
        model.eval()
        if break_newline:
            model.image_newline[0] += 1.0
        for sizes in cases:
            ids, pixels, shapes, tiles = sample(model.config.image_geometry(), sizes, tiling)
            ours, _ = model(ids, pixel_values=pixels, image_sizes=shapes, tiles_per_image=tiles)
            want = theirs(reference, ids, pixels, shapes, tiles)
            want = want.chunk(layout.tp, -1)[parallel_state.get_tensor_model_parallel_rank()]
            assert ours.shape == want.shape
            found[str(sizes)] = (ours - want).abs().max().item()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny_hf.llava_next(tmp_path_factory.mktemp("llava")))


def largest(results):
    return max((value, case) for result in results for case, value in result.items())


@pytest.fixture(scope="module")
def one_rank(folder):
    """Differences of all cases, from one launch."""
    cases = [case for cases in CASES.values() for case in cases]
    [found] = launch(differences, 1, {"folder": folder, "cases": cases}, timeout=300)
    return found


@pytest.mark.parametrize("kind", CASES)
def test_logits_are_those_of_transformers(one_rank, kind):
    found = {str(case): one_rank[str(case)] for case in CASES[kind]}
    assert len(found) == len(CASES[kind]) and (kind != "grids" or len(found) == 35)
    assert largest([found])[0] < TOLERANCE, largest([found])


def test_no_tiling_takes_the_thumbnail_and_one_newline(folder):
    cases = [[(50, 90)], [(384, 32)], [(64, 64), (33, 120)]]
    results = launch(differences, 1, {"folder": folder, "cases": cases, "tiling": False})
    assert largest(results)[0] < TOLERANCE, largest(results)


def test_logits_on_two_tensor_parallel_ranks(folder):
    cases = [[], [(50, 90)], [(384, 32)], [(20, 20), (300, 40), (40, 300)]]
    results = launch(differences, 2, {"folder": folder, "cases": cases, "layout": Layout(tp=2)})
    assert largest(results)[0] < TOLERANCE, largest(results)


ROPES = {
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64},
}


def rope_differences(folders):
    return {name: differences(folder, [[(50, 90)]]) for name, folder in folders.items()}


def test_positions_are_extended_as_the_checkpoint_says(tmp_path):
    """AMALIA's context was extended: whichever way its config says, positions must be transformers' own."""
    folders = {}
    for name, rope in ROPES.items():
        text = tiny_hf.text_config(rope_parameters=rope, max_position_embeddings=16384)
        folders[name] = str(tiny_hf.llava_next(tmp_path / name, config=tiny_hf.llava_config(text=text)))
    [found] = launch(rope_differences, 1, {"folders": folders})
    for name, result in found.items():
        assert largest([result])[0] < TOLERANCE, (name, result)


def test_the_comparison_sees_a_wrong_newline(folder):
    arguments = {"folder": folder, "cases": [[(50, 90)]], "break_newline": True}
    [found] = launch(differences, 1, arguments)
    assert largest([found])[0] > 1e-2
