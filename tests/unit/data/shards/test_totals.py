"""What a folder adds up to: against counts made here, from the shards and from the samples."""

import io
import json
import random
import tarfile

import pytest
from chatml import conversation, picture
from stream_settings import PIXELS
from tiny_shards import conversations

from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to
from nemo_amalia.data.shards.check import prepare_arguments
from nemo_amalia.data.shards.totals import FILE, MAX_SIZES, ImageSizes, Totals, read_totals, scan, shard_counts
from nemo_amalia.data.shards.write import write_shards
from nemo_amalia.utils.errors import UserError

PAPER = ImageGeometry(384, 16, grids_up_to(12, 384))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """20 samples of list content (15 images of 24 to 71 pixels), in three shards."""
    return write_shards(conversations(20), tmp_path_factory.mktemp("totals") / "ruido", 8).folder


def test_totals_are_those_of_the_samples(folder):
    from PIL import Image

    totals, samples = read_totals(folder), list(conversations(20))
    sizes = [Image.open(io.BytesIO(data)).size for sample in samples for data in sample["images"]]
    assert (totals.samples, totals.turns, totals.images, totals.unreadable_images) == (20, 40, 15, 0)
    assert totals.characters == sum(len("Que vês?") + len(f"Ruído {i}.") for i in range(20))
    assert totals.image_tokens(PAPER, True) == sum(PAPER.num_tokens(*size, True) for size in sizes)
    assert totals.image_tokens(PAPER, tiling=False) == 15 * 577
    assert sum(shard_counts(folder).values()) == 20 and totals.text_tokens is None


def test_placeholders_in_strings_are_no_text():
    totals = Totals()
    totals.add([{"role": "user", "content": "<image><image>olá"}], [picture(30, 20), picture(30, 20)[:-40]], PIXELS)
    assert (totals.characters, totals.images, totals.unreadable_images) == (3, 2, 1)
    assert list(totals.sizes.items()) == [(30, 20, 1)]


def test_a_scan_finds_what_was_written_and_counts_tokens(folder, chat):
    before = read_totals(folder)
    (folder / FILE).unlink()
    assert read_totals(folder) is None
    assert scan(folder, max_image_pixels=PIXELS) == before == read_totals(folder)
    counted = scan(folder, chat, "bytes", max_image_pixels=PIXELS)
    expected = sum(
        len(chat.encode(sample["messages"], [1] * len(sample["images"]))[0]) - len(sample["images"])
        for sample in conversations(20)
    )
    assert (counted.text_tokens, counted.tokenizer, counted.refused) == (expected, "bytes", {})
    assert read_totals(folder) == counted
    before.write(folder)


def test_a_scan_counts_what_training_would_drop(tmp_path, chat):
    bad = {"placeholders": {"images": []}, "no_loss_token": {"messages": [{"role": "user", "content": "<image>"}]}}
    samples = [conversation(0), conversation(1) | bad["placeholders"], conversation(2) | bad["no_loss_token"]]
    totals = scan(write_shards(samples, tmp_path / "d").folder, chat, "bytes", max_image_pixels=PIXELS)
    assert totals.samples == 3 and totals.refused == {"placeholders": 1, "no_loss_token": 1}
    alone = scan(write_shards(samples[:1], tmp_path / "e").folder, chat, "bytes", max_image_pixels=PIXELS)
    assert totals.text_tokens == alone.text_tokens > 0


def test_stale_broken_and_foreign_files(tmp_path, folder):
    content = json.loads((folder / FILE).read_text())
    for name, text in {
        "stale": json.dumps(content | {"samples": 21}),
        "old": json.dumps(content | {"version": 0}),
    }.items():
        copy = tmp_path / name
        (copy / ".nv-meta").mkdir(parents=True)
        (copy / ".nv-meta" / ".info.json").write_text((folder / ".nv-meta" / ".info.json").read_text())
        (copy / FILE).write_text(text)
        assert read_totals(copy) is None
    (copy / FILE).write_text("{")
    with pytest.raises(UserError, match="cannot be read .*: remove it and add scan=true"):
        read_totals(copy)
    with pytest.raises(UserError, match="cannot be read .*: make this data set again"):
        scan(copy, max_image_pixels=PIXELS)  # an index, and no shard
    with pytest.raises(UserError, match="has no readable index"):
        shard_counts(tmp_path)


def test_shards_of_others_are_scanned(tmp_path):
    """A record without a json is a sample that training drops: counted, by its reason."""
    from megatron.energon.tools.prepare import command

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (
            ("x/1.jpg", picture(40, 30)),
            ("x/2.json", b'{"messages": []}'),
            ("x/2.jpg", picture(50, 30)),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    command.main(prepare_arguments(tmp_path), standalone_mode=False)
    totals = scan(tmp_path, max_image_pixels=PIXELS)
    assert (totals.samples, totals.images, totals.refused) == (2, 1, {"record": 1})


def test_many_sizes_are_counted_in_steps():
    """Bounded, independent of order, nothing lost; the error is measured: 0.5 % on sides from 32 to 4,096 pixels."""
    draw = random.Random(0)
    pictures = [(int(2 ** draw.uniform(5, 12)), int(2 ** draw.uniform(5, 12))) for _ in range(5000)]
    sizes, backwards = ImageSizes(), ImageSizes()
    for width, height in pictures:
        sizes.add(width, height)
    for width, height in reversed(pictures):
        backwards.add(width, height)
    assert sizes == backwards and sizes.step > 1 and len(sizes.counts) <= MAX_SIZES
    assert sum(number for _, _, number in sizes.items()) == 5000
    exact = sum(PAPER.num_tokens(*size, True) for size in pictures)
    assert Totals(sizes=sizes).image_tokens(PAPER, True) == pytest.approx(exact, rel=0.02)


def test_steps_survive_the_file(tmp_path, folder):
    totals = read_totals(folder)
    for side in range(1, 2 * MAX_SIZES):
        totals.sizes.add(side, 7)
    totals.write(folder)
    try:
        assert totals.sizes.step == 4 and read_totals(folder) == totals
    finally:
        scan(folder, max_image_pixels=PIXELS)
