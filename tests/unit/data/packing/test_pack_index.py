"""`amalia data pack`: what is in an index, that its lengths are training's, and what is refused."""

import copy
import hashlib
import json
import os
import zipfile

import numpy as np
import pytest
from chatml import conversation
from stream_settings import stream_settings
from streams import BAD, build_loader, conversation_encoder, make_index, with_bad

from nemo_amalia.cli import main
from nemo_amalia.data.encoding.cookers import cook_conversation
from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to
from nemo_amalia.data.packing.index import epoch_order, read_head, read_index, refuse_other, settings_of, write_index
from nemo_amalia.data.shards.metadataset import write_blend
from nemo_amalia.data.shards.read import BLOCK, read_record
from nemo_amalia.data.shards.write import write_shards
from nemo_amalia.utils.errors import UserError

CAPACITY = 512


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    samples = (conversation(i, images=i % 3, words=1 + i % 7) for i in range(50))
    return write_shards(samples, tmp_path_factory.mktemp("index") / "data", 8).folder


@pytest.fixture(scope="module")
def index(folder, assets):
    path = folder.parent / "data.packs"
    make_index(folder, assets, path, seq_length=CAPACITY, window=20)
    return path


def records(index, folder):
    """(row, record) of every sample, read where the index says."""
    for row in range(len(index.lengths)):
        shard = index.head["data"]["shards"][index.shards[row]]
        descriptor = os.open(folder / shard, os.O_RDONLY)
        yield row, read_record(descriptor, shard, int(index.offsets[row]) * BLOCK, int(index.sizes[row]) * BLOCK)
        os.close(descriptor)


def test_every_sample_is_there_once_with_the_length_that_training_gives_it(index, folder, chat, geometry):
    packs = read_index(index)
    encoder = conversation_encoder(chat, geometry, CAPACITY)
    seen, loss, image = [], 0, 0
    for row, record in records(packs, folder):
        sample = encoder(cook_conversation(record))
        assert len(sample) == packs.lengths[row]
        loss += int(sample.loss_mask[1:].sum())
        image += int((sample.input_ids == chat.image_token_id).sum())
        seen.append(record["__key__"])
    assert sorted(seen) == [f"shard-{i // 8:06d}.tar/s-{i:05d}" for i in range(50)]
    totals = packs.head["totals"]
    assert (totals["loss_tokens"], totals["image_tokens"]) == (loss, image) and image > 0
    assert totals["tokens"] == packs.lengths.sum() and totals["samples"] == totals["samples_in"] == 50
    loads = np.add.reduceat(packs.lengths.astype(np.int64), packs.starts[:-1])
    assert len(packs) == totals["packs"] == len(loads) and loads.max() <= CAPACITY
    assert totals["fill"] == pytest.approx(loads.mean() / CAPACITY)


def test_it_drops_what_training_drops_and_counts_it(tmp_path, assets, chat, geometry):
    bad = with_bad(BAD, tmp_path)
    totals = make_index(bad, assets, tmp_path / "i", seq_length=CAPACITY)["totals"]
    loader = build_loader(
        bad, geometry=geometry, chat=chat, seq_length=CAPACITY, image_mean=[0.5] * 3, image_std=[0.5] * 3,
        num_workers=0, on_bad_sample="drop", repeat=False,
    )  # fmt: skip
    list(loader)
    dropped = loader.faults.dropped()
    dropped["image"] -= 1  # the one that only the decoder notices
    assert totals["dropped"] == dropped
    assert totals["samples_in"] == 20 == totals["samples"] + sum(dropped.values())


def test_the_file_does_not_depend_on_the_workers(index, folder, assets, tmp_path):
    make_index(folder, assets, tmp_path / "two", seq_length=CAPACITY, window=20, workers=2)
    again, first = zipfile.ZipFile(tmp_path / "two"), zipfile.ZipFile(index)
    assert again.namelist() == first.namelist() and again.testzip() is None
    assert all(again.read(name) == first.read(name) for name in first.namelist()[1:])
    assert read_head(tmp_path / "two")["digest"] == read_head(index)["digest"]


def test_an_index_of_one_folder_is_what_it_was_before_there_were_mixes(tmp_path, assets):
    """Byte by byte: the arrays of texts alone, for pictures are compressed otherwise by another version of Pillow."""
    texts = write_shards((conversation(i, images=0, words=1 + i % 17) for i in range(90)), tmp_path / "d", 13).folder
    head = make_index(texts, assets, tmp_path / "i", seq_length=CAPACITY, window=20)
    file = zipfile.ZipFile(tmp_path / "i")
    arrays = b"".join(file.read(name) for name in file.namelist()[1:])
    assert hashlib.sha256(arrays).hexdigest()[:16] == "38cf87da7a035913"
    assert head["format"] == "amalia pack index 2" and list(head["data"]) == ["identity", "folder", "shards"]
    assert list(head) == "format settings data totals examples window algorithm seconds digest".split()


def test_no_tiling_and_padding_change_the_lengths(index, folder, assets, tmp_path):
    flat = make_index(folder, assets, tmp_path / "flat", seq_length=CAPACITY, tiling=False)
    padded = make_index(folder, assets, tmp_path / "padded", seq_length=CAPACITY, segment_multiple=64)
    first = read_head(index)
    assert flat["totals"]["tokens"] < first["totals"]["tokens"] == padded["totals"]["tokens"]
    assert padded["totals"]["packs"] > first["totals"]["packs"]
    packs = read_index(tmp_path / "padded")
    loads = np.add.reduceat(-(-packs.lengths.astype(np.int64) // 64) * 64, packs.starts[:-1])
    assert loads.max() <= CAPACITY
    assert len({flat["digest"], padded["digest"], first["digest"]}) == 3


def test_millions_of_samples_stay_in_the_tens_of_megabytes(tmp_path, index):
    random, number = np.random.default_rng(0), 200_000
    arrays = {
        "counts": np.full(number // 4, 4),
        "shards": np.sort(random.integers(0, 4700, number)),
        "offsets": random.integers(0, 2_000_000, number),  # of shards of 1 GB
        "sizes": random.integers(1, 4000, number),
        "lengths": random.integers(50, 16384, number),
    }
    write_index(tmp_path / "big", read_head(index), arrays)
    assert (tmp_path / "big").stat().st_size / number * 4.7e6 < 60e6


def test_an_order_is_a_permutation_of_its_own():
    orders = [epoch_order(1000, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (10, 0), (1, 1))]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert len({tuple(order) for order in orders}) == 5
    assert epoch_order(8, 0, 0).tolist() == [5, 6, 1, 2, 3, 4, 0, 7]  # of any machine and any version of numpy
    assert abs(np.corrcoef(orders[0], np.arange(1000))[0, 1]) < 0.1
    assert (orders[0][:-1] + 1 == orders[0][1:]).sum() < 10  # neighbours of a shard are not neighbours in a batch


def other_tokenizer(tokenizer):
    changed = copy.deepcopy(tokenizer)
    changed.add_tokens(["olá"])
    return changed


def other_template(tokenizer):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template += "\n"
    return changed


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seq_length": 1024}, "seq_length was 512 and is 1024"),
        ({"segment_multiple": 4}, "segment_multiple was 1 and is 4"),
        ({"tiling": False}, "tiling was True and is False"),
        ({"geometry": ImageGeometry(32, 8, grids_up_to(6, 32))}, "pinpoints was 8 canvases .* and is 14 canvases"),
        ({"geometry": ImageGeometry(32, 16, grids_up_to(4, 32))}, "patch was 8 and is 16"),
        ({"tokenizer": other_tokenizer}, "tokenizer was '[0-9a-f]{16}' and is"),
        ({"tokenizer": other_template}, "chat_template was '[0-9a-f]{16}' and is"),
    ],
)
def test_an_index_of_something_else_is_refused(index, folder, chat, geometry, tokenizer, change, text):
    from nemo_amalia.data.encoding.chat import ChatFormat

    values = {"geometry": geometry, "seq_length": CAPACITY, "segment_multiple": 1, "tiling": True} | change
    function = values.pop("tokenizer", None)
    geometry = values.pop("geometry")
    settings = settings_of(ChatFormat(function(tokenizer)) if function else chat, geometry, stream_settings(**values))
    with pytest.raises(UserError, match=f"are not this run's: {text}") as caught:
        refuse_other(index, read_head(index), settings, folder)
    assert "\n" not in str(caught.value) and ";" not in str(caught.value)  # one difference, named once


def test_other_shards_are_refused(index, folder, chat, geometry, tmp_path):
    settings = settings_of(chat, geometry, stream_settings(seq_length=CAPACITY))
    refuse_other(index, read_head(index), settings, folder)
    other = write_shards((conversation(i) for i in range(4)), tmp_path / "other").folder
    with pytest.raises(UserError, match="the shards were .* and those of .*/other are"):
        refuse_other(index, read_head(index), settings, other)
    blend = write_blend([(folder, 1)], tmp_path / "mix.yaml")
    with pytest.raises(UserError, match="mixes several folders"):
        refuse_other(index, read_head(index), settings, blend)


def test_the_command_prints_what_it_made(tmp_path, assets, capsys):
    out = tmp_path / "data.packs"
    words = ["data", "pack", str(with_bad(["too_long"], tmp_path)), "--assets", str(assets), "--out", str(out)]
    words += ["--seq-length", "512", "--workers", "0"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "20 samples in 2 shards: 19 packed, 1 dropped (1 too_long)"
    assert lines[1].startswith("  too_long: sample bad/shard-000000.tar/s-00000 has ")
    assert lines[-1].endswith(f"train with data.pack_index={out} stage.epochs=1")
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: {out} is there already: choose another name, or remove it\n"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"source": "none"}, "does not exist"),
        ({"assets": "none"}, "has no config.json"),
        ({"seq_length": 510, "segment_multiple": 4}, "is not a multiple of --segment-multiple 4"),
        ({"workers": -1}, "--workers is -1"),
        ({"window": 0}, "a window of 0 samples"),
        ({"algorithm": "worst"}, "--algorithm is 'worst': choose one of best_fit_decreasing, balanced"),
        (
            {"seq_length": 10},
            "no sample of .* can be trained on: 50 too_long; sample data/shard-000000.tar/s-00000 has",
        ),
    ],
)
def test_what_cannot_be_packed_leaves_nothing(folder, assets, tmp_path, changes, text):
    for name in ("source", "assets"):
        if name in changes:
            changes = changes | {name: tmp_path / changes[name]}
    values = {"source": folder, "assets": assets, "out": tmp_path / "index", "seq_length": CAPACITY} | changes
    with pytest.raises(UserError, match=text):
        make_index(**values)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_is_not_what_its_index_says(tmp_path, assets):
    broken = write_shards((conversation(i, images=0) for i in range(4)), tmp_path / "d", 2).folder
    shard = broken / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:1024])
    with pytest.raises(UserError, match="does not fit shard-000001.tar of 1,024 bytes: index its folder again"):
        make_index(broken, assets, tmp_path / "i", seq_length=CAPACITY)
    shard.write_bytes(b"x" * 20_000)
    with pytest.raises(UserError, match="shard-000001.tar holds no sample at byte 0"):
        make_index(broken, assets, tmp_path / "i", seq_length=CAPACITY, workers=2)


def test_files_that_are_no_index(tmp_path, index):
    with pytest.raises(UserError, match="is not a pack index"):
        read_head(tmp_path / "none")
    (tmp_path / "torn").write_bytes(index.read_bytes()[:500])
    with pytest.raises(UserError, match="is not a pack index"):
        read_index(tmp_path / "torn")
    for number, name in enumerate(("amalia pack index 1", "amalia pack index 3", None)):
        other = tmp_path / f"my packs {number}"
        with zipfile.ZipFile(other, "w") as file:
            file.writestr("head.json", json.dumps({"format": name}))
        with pytest.raises(UserError, match=f"'{other}' has format {name!r}, expected 'amalia pack index 2'") as info:
            read_head(other)
        assert f"make a new one with `amalia data pack SOURCE --assets HF --out '{other}'`" in str(info.value)
