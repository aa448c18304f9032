"""Preference pairs in the model: images encoded once for both answers, and segments that do not see each other.

Shared against separate encoding is one step of Megatron's own schedule on two ranks, at the same layout. fp32: the
tower runs on half as many tiles, so that only sums of gradients are taken in another order. 1e-6 of loss and norm,
1e-5 of a gradient's largest entry. An image in another place moves the loss by 1e-4 and more, which a test shows.
"""

import pytest
from launcher import launch

LAYOUTS = {
    "data parallel": {},
    "tensor and sequence parallel": dict(tensor_model_parallel_size=2, sequence_parallel=True),
    "tower replicated": dict(tensor_model_parallel_size=2, tower_data_parallel=False),
    "context parallel": dict(context_parallel_size=2),
    "pipeline": dict(pipeline_model_parallel_size=2),
}
MULTIPLE = 4  # what two context-parallel ranks need, at every layout
# (height, width) of the images of each pair
PACKS = {"images": [((100, 100), (31, 90)), (), ((64, 40),)], "text": [(), ()]}


def pairs(provider, shapes):
    """[(TokenizedPair, tiles)]: random text and tiles, answers of different lengths."""
    import numpy as np
    import torch
    from tiny_model import IMAGE, TILE, VOCABULARY

    from nemo_amalia.data.samples import TokenizedPair, TokenizedSample

    geometry, made = provider.image_geometry(), []
    for number, sizes in enumerate(shapes):
        random = np.random.default_rng(number)
        generator = torch.Generator().manual_seed(number)
        sizes = tuple((width, height) for height, width in sizes)
        tiles = [
            torch.randint(
                256, (geometry.num_tiles(w, h, True), 3, TILE, TILE), dtype=torch.uint8, generator=generator
            ).contiguous(memory_format=torch.channels_last)
            for w, h in sizes
        ]
        prompt = [IMAGE] * sum(geometry.num_tokens(w, h, True) for w, h in sizes) + random.integers(
            6, VOCABULARY, 7
        ).tolist()
        segments = []
        for length in (11 + number, 6 + 2 * number):
            ids = np.asarray(prompt + random.integers(6, VOCABULARY, length).tolist(), dtype=np.int32)
            mask = np.zeros(len(ids), dtype=np.uint8)
            mask[len(prompt) : -1] = 1
            segments.append(TokenizedSample(f"{number}", "", ids, mask, (b"",) * len(sizes), sizes, True))
        made.append((TokenizedPair(f"{number}", *segments, MULTIPLE), tiles))
    return made


def inputs(provider, items, share=True):
    """What the training step gives the model for a pack of (pair or segment, tiles); rejected segments count half."""
    from stream_settings import make_collator
    from tiny_model import IMAGE

    from nemo_amalia.data.packing.algorithms import padded_length
    from nemo_amalia.training.steps.sft import model_inputs

    used = sum(padded_length(len(segment), MULTIPLE) for item, _ in items for segment in item.segments)
    collate = make_collator(
        seq_length=padded_length(used, 8), pad_token_id=9, image_token_id=IMAGE, geometry=provider.image_geometry(),
        segment_multiple=MULTIPLE, share_pair_images=share,
    )  # fmt: skip
    batch = collate([item for item, _ in items], [tiles for _, tiles in items])
    bounds = batch.cu_seqlens.tolist()
    for pair in range(batch.num_pairs):
        batch.loss_mask[0, bounds[2 * pair + 1] : bounds[2 * pair + 2]] *= 0.5
    return {name: value for name, value in model_inputs(batch, with_images=True).items() if name != "position_ids"}


def compare_encodings(layouts: dict) -> dict:
    """By layout and pack: differences of loss and norm, of gradients by module, and their largest entries."""
    import torch.distributed as dist
    from tiny_model import make_provider, run_step

    dist.init_process_group("gloo")
    found = {}
    for name, layout in layouts.items():
        for kind, shapes in PACKS.items():
            steps, tiles = [], []
            for share in (True, False):
                provider = make_provider(**layout)
                batch = inputs(provider, pairs(provider, shapes), share)
                tiles.append(len(batch["pixel_values"]))
                steps.append(run_step(provider, [batch]))
            one, other = steps
            modules = {}
            for parameter, gradient in other.gradients.items():
                module = parameter.split(".")[0]
                largest = float(gradient.abs().max())
                difference = float((one.gradients[parameter] - gradient).abs().max())
                worst, size = modules.get(module, (0.0, 0.0))
                modules[module] = max(worst, difference / largest if largest else difference), max(size, largest)
            found[name, kind] = (
                abs(one.loss / other.loss - 1), abs(one.norm / other.norm - 1), modules, tuple(tiles)
            )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def encodings():
    return launch(compare_encodings, 2, {"layouts": LAYOUTS}, timeout=300)


@pytest.mark.parametrize("kind", PACKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_shared_encoding_is_separate_encoding(encodings, layout, kind):
    for rank, found in enumerate(encodings):
        loss, norm, modules, tiles = found[layout, kind]
        assert loss < 1e-6 and norm < 1e-6, (rank, loss, norm)
        assert tiles[1] == (2 * tiles[0] if kind == "images" else tiles[0])
        assert all(difference < 1e-5 for difference, _ in modules.values()), (rank, modules)
        if layout != "pipeline" or rank == 0:
            assert {"vision_tower", "connector", "image_newline"} <= set(modules)
            sizes = [modules[name][1] for name in ("vision_tower", "connector", "image_newline")]
            assert all(size > 0 for size in sizes) if kind == "images" else not any(sizes)


def log_probabilities() -> dict:
    """Of each segment of a pack: in the pack, alone, and in the pack with two images exchanged."""
    import torch
    import torch.distributed as dist
    from megatron.core import parallel_state
    from tiny_model import build, make_provider

    dist.init_process_group("gloo")
    provider = make_provider()
    model = build(provider).eval()
    made = pairs(provider, PACKS["images"])

    def sums(batch):
        with torch.no_grad():
            losses, mask = model(position_ids=None, **batch)
        scores = (-losses * (mask > 0))[0]
        bounds = batch["packed_seq_params"].cu_seqlens_q.tolist()
        return [float(scores[start:end].sum()) for start, end in zip(bounds, bounds[1:], strict=False)]

    pack = inputs(provider, made)
    wrong = pack | {"image_order": torch.tensor([0, 1, 1, 0, 2, 2])}
    alone = [sums(inputs(provider, [(segment, tiles)]))[0] for pair, tiles in made for segment in pair.segments]
    apart = sums(inputs(provider, made, share=False))
    result = {"pack": sums(pack), "apart": apart, "alone": alone, "wrong": sums(wrong)}
    parallel_state.destroy_model_parallel()
    return result


def test_a_segment_has_the_same_log_probability_in_a_pack_and_alone():
    (found,) = launch(log_probabilities, 1)
    number = len(found["alone"])
    assert number == 2 * len(PACKS["images"]) and all(value < -10 for value in found["alone"])
    assert found["pack"][:number] == pytest.approx(found["alone"], rel=1e-5)
    assert found["apart"][:number] == pytest.approx(found["alone"], rel=1e-5)
    assert all(value == 0 for value in found["pack"][number:])  # padding is no completion
    moved = [abs(one / other - 1) for one, other in zip(found["wrong"], found["alone"], strict=False)]
    assert moved[1] > 1e-4 and max(moved[:1] + moved[2:]) < 1e-5  # the tolerance sees an image in another place
