"""The stream from an index: every pack once an epoch, the same global batches at any number of ranks and workers."""

import os
import shutil

import pytest
import torch
from chatml import conversation, picture
from streams import (
    BATCH,
    CAPACITY,
    build_index_loader,
    build_loader,
    equal,
    global_batches,
    group,
    keys,
    make_index,
    take,
)

from nemo_amalia.data.loading.index_stream import POSITION, share_positions
from nemo_amalia.data.packing.index import read_index
from nemo_amalia.data.samples import BadSampleError
from nemo_amalia.data.shards.write import write_shards
from nemo_amalia.utils.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    samples = (conversation(i, images=i % 3, words=1 + i % 7) for i in range(48))
    return write_shards(samples, tmp_path_factory.mktemp("stream") / "data", 16).folder


@pytest.fixture(scope="module")
def index(folder, assets):
    path = folder.parent / "data.packs"
    make_index(folder, assets, path, seq_length=CAPACITY, window=20)
    return path


@pytest.fixture
def load(folder, index, chat, geometry):
    opened = []

    def build(index=index, path=folder, build=build_index_loader, **changes):
        settings = {
            "geometry": geometry,
            "chat": chat,
            "seq_length": CAPACITY,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "num_workers": 0,
        }
        arguments = [index, path] if build is build_index_loader else [path]
        opened.append(build(*arguments, **(settings | changes)))
        return opened[-1]

    yield build
    for loader in opened:
        loader.close()


def test_an_epoch_is_every_pack_once_and_the_next_has_another_order(load, index):
    number = len(read_index(index))
    loader = load()
    first, second = ([tuple(batch.keys) for batch in take(loader, number)] for _ in range(2))
    assert sorted(first) == sorted(second) and first != second
    assert len(set(first)) == number and len({key for pack in first for key in pack}) == 48
    assert [tuple(batch.keys) for batch in take(load(), number)] == first
    assert [tuple(batch.keys) for batch in take(load(seed=1), number)] != first
    assert [tuple(batch.keys) for batch in load(repeat=False)] == first
    assert loader.faults.totals()["samples_in"] == loader.faults.totals()["samples_out"] == 96


def test_ranks_share_an_epoch_without_overlap(load, index):
    packs = [[tuple(batch.keys) for batch in loader] for loader in group(load, 3, repeat=False)]
    together = [pack for part in packs for pack in part]
    assert len(together) == len(set(together)) == len(read_index(index))
    assert max(map(len, packs)) - min(map(len, packs)) <= 1


def test_the_packs_are_what_energon_would_have_made_of_the_samples(load, geometry):
    """A sample is the same tokens, mask and pixels, whichever way it was read."""
    streams = load(), load(build=build_loader, repeat=False)
    seen = [{}, {}]
    for found, batches in zip(seen, (take(streams[0], 30), list(streams[1])), strict=True):
        for batch in batches:
            tiles = iter(batch.tiles.split(batch.tiles_per_image.tolist()) if len(batch.tiles_per_image) else ())
            for which, key in enumerate(batch.keys):
                start, end = batch.cu_seqlens[which : which + 2].tolist()
                row = [getattr(batch, name)[0, start:end] for name in ("tokens", "labels", "loss_mask", "position_ids")]
                images = int(key[-5:]) % 3
                found[key] = [*row, *(next(tiles) for _ in range(images))]
    assert len(seen[0]) == len(seen[1]) == 48
    for key, parts in seen[0].items():
        assert all(torch.equal(a, b) for a, b in zip(parts, seen[1][key], strict=True)), key


def test_resuming_at_another_layout_continues_the_same_global_batches(load, index):
    assert (5 * BATCH) % len(read_index(index))  # an epoch ends inside a batch, and the next one goes on
    expected = global_batches(group(load, 1), 15)
    assert len({pack for batch in expected[:5] for pack in batch}) > BATCH
    state, found = None, []
    for size, workers in ((1, 0), (2, 1), (1, 2), (4, 0), (2, 2)):
        loaders = group(load, size, num_workers=workers)
        if state is not None:
            for loader in loaders:
                loader.restore(state)
        found += global_batches(loaders, 3)
        states = [loader.state() for loader in loaders]
        assert all(other == states[0] for other in states)  # any rank's file will do
        state = states[-1]
        for loader in loaders:
            loader.close()
    assert found == expected


def test_a_restored_loader_gives_the_same_tensors(load):
    loader = load(num_workers=2)
    take(loader, 5)
    state, expected = loader.state(), take(loader, 4)
    resumed = load()
    resumed.restore(state)
    assert all(equal(a, b) for a, b in zip(expected, take(resumed, 4), strict=True))


def test_packs_decoded_in_the_training_process_are_the_same(load):
    loader = load(num_workers=2)
    loader.packs.decode_here = False  # the way of decode_device="mixed", with the CPU decoder
    assert all(equal(a, b) for a, b in zip(take(loader, 3), take(load(), 3), strict=True))


def test_states_of_something_else_are_refused(load, folder, assets, tmp_path):
    state = load().state()
    with pytest.raises(UserError, match="seed was 0 and is 5"):
        load(seed=5).restore(state)
    make_index(folder, assets, tmp_path / "other", seq_length=CAPACITY, window=48)
    with pytest.raises(UserError, match="index was '[0-9a-f]{16}' and is"):
        load(index=tmp_path / "other").restore(state)
    with pytest.raises(
        UserError, match="has format 'energon 2', expected 'pack index 1': resume without data.pack_index"
    ):
        load().restore(load(build=build_loader).state())
    with pytest.raises(
        UserError, match="has format 'pack index 1', expected 'energon 2': resume with data.pack_index, or"
    ):
        load(build=build_loader).restore(state)
    loader = load()
    next(loader)
    with pytest.raises(UserError, match="has already given batches"):
        loader.restore(state)


def test_settings_that_the_index_is_not_of_are_refused(load):
    with pytest.raises(UserError, match="are not this run's: seq_length was 512 and is 256; tiling was True"):
        load(seq_length=256, tiling=False)
    with pytest.raises(UserError, match="is for training with packing"):
        load(packing=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_changed_ends_the_run_in_one_line(load, folder, index, tmp_path, workers):
    changed = tmp_path / "data"
    shutil.copytree(folder, changed)
    for shard in changed.glob("*.tar"):
        shard.write_bytes(shard.read_bytes().replace(b"resposta ", b"res\\u0070"))  # as many bytes, fewer letters
    with pytest.raises(BadSampleError, match=r"has \d+ tokens and had \d+ when .*\(pack \d+ of the index\)$") as caught:
        list(load(path=changed, num_workers=workers, repeat=False))
    assert "\n" not in str(caught.value)
    shutil.copytree(folder, tmp_path / "short")
    for shard in (tmp_path / "short").glob("*.tar"):
        os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(BadSampleError, match="holds no sample at byte"):
        list(load(path=tmp_path / "short", num_workers=workers, repeat=False))


def test_a_pack_of_which_nothing_can_be_decoded_keeps_its_place(load, assets, tmp_path):
    late = picture(90, 61, 5, "PNG")
    torn = late[: len(late) // 2] + bytes(400) + late[len(late) // 2 + 400 :]  # only the decoder notices
    samples = [conversation(i, images=1, words=20) | {"images": [torn if i == 1 else late]} for i in range(4)]
    path = write_shards(samples, tmp_path / "torn").folder
    make_index(path, assets, tmp_path / "index", seq_length=CAPACITY)
    loader = load(index=tmp_path / "index", path=path, repeat=False)
    batches = list(loader)
    assert len(batches) == len(read_index(tmp_path / "index")) == 4  # a sample is longer than half a pack
    (empty,) = [batch for batch in batches if not batch.keys]
    assert (empty.num_samples, empty.num_tokens, float(empty.loss_mask.sum())) == (0, 0, 0.0)
    assert empty.tokens.shape == (1, CAPACITY) and empty.cu_seqlens[-1] == CAPACITY and len(empty.tiles) == 1
    assert loader.faults.dropped() == {"image": 1} and len(keys(batches)) == 3
    with pytest.raises(BadSampleError, match="image 0 of sample shard-000000.tar/s-00001: cannot be decoded"):
        list(load(index=tmp_path / "index", path=path, repeat=False, on_bad_image="fail"))


def test_a_rank_that_the_saved_run_did_not_have_finds_the_position(load, tmp_path):
    share_positions(None, 1)
    share_positions(str(tmp_path / "none"), 1)
    loader = load()
    take(loader, BATCH)
    place = tmp_path / "iter_0000001"
    place.mkdir()
    torch.save(loader.state(), place / POSITION.format(0))
    for rank in (0, 1, 1):
        share_positions(str(tmp_path), rank)
    assert sorted(path.name for path in place.iterdir()) == [POSITION.format(0), POSITION.format(1)]
    state = torch.load(place / POSITION.format(1), weights_only=True)
    assert state["position"] == BATCH
    resumed = load(dp_rank=1, dp_size=2)
    resumed.restore(state)
    assert equal(next(resumed), take(loader, 2)[1])
