"""data.max_image_pixels: one limit for importing, packing, viewing and training, whatever Pillow's own is."""

import json
import threading
import warnings

import pytest
import torch
from chatml import conversation, picture
from imports import run
from PIL import Image
from sources import llava_source
from stream_settings import PIXELS, make_view
from streams import build_index_loader, make_index

from benchmarks.damaged_images import bomb
from nemo_amalia.cli import main
from nemo_amalia.data.images.decode import TileMaker
from nemo_amalia.data.images.headers import ImageError, check_max_pixels, pillow_limit, read_header
from nemo_amalia.data.packing.index import read_head
from nemo_amalia.data.shards.totals import read_totals, scan
from nemo_amalia.data.shards.write import write_shards
from nemo_amalia.utils.errors import UserError

LARGE = 90 * 61  # pixels of one picture in three; the others have fewer than SMALL
SMALL = 50 * 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine samples of one picture; those of the keys 0, 3 and 6 have LARGE pixels."""
    samples = [
        conversation(i) | {"images": [picture(90, 61, i) if i % 3 == 0 else picture(50, 50, i)]} for i in range(9)
    ]
    return write_shards(samples, tmp_path_factory.mktemp("pixels") / "data").folder


@pytest.mark.parametrize(("limit", "kept"), [(SMALL - 1, 0), (SMALL, 6), (LARGE - 1, 6), (LARGE, 9)])
def test_importing_packing_viewing_and_training_agree(folder, assets, load, tmp_path, limit, kept):
    loader = load(folder, max_image_pixels=limit, repeat=False)
    given = sorted(key for batch in loader for key in batch.keys)
    assert len(given) == kept and loader.faults.dropped() == ({"image": 9 - kept} if kept < 9 else {})
    assert all(f"at most {limit:,} are allowed" in fault.message for fault in loader.faults.log())

    settings = {
        "samples": 2,
        "number": 9,
        "seq_length": 512,
        "packing_algorithm": "balanced",
        "max_image_pixels": limit,
    }
    view = make_view(str(folder), assets, **settings)
    assert sorted(one.key for one in view.usable) == given and {one.reason for one in view.faulty} <= {"image"}

    if kept:
        index = tmp_path / "i"
        totals = make_index(folder, assets, index, seq_length=512, max_image_pixels=limit)["totals"]
        assert (totals["samples"], totals["dropped"]) == (kept, {"image": 9 - kept} if kept < 9 else {})
        common = {name: getattr(loader.task_encoder.encoder, name) for name in ("chat", "geometry")}
        common |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "seq_length": 512, "repeat": False}
        indexed = build_index_loader(index, folder, num_workers=0, max_image_pixels=limit, **common)
        assert sorted(key for batch in indexed for key in batch.keys) == given and not indexed.faults.dropped()


def test_an_import_keeps_what_its_limit_allows_and_counts_the_rest(tmp_path):
    source = llava_source(tmp_path / "llava", 9)  # six pictures of 60x40
    images = {"images": str(tmp_path / "llava" / "fotos")}
    counts = run("llava", source, tmp_path / "a", max_bad=1, max_image_pixels=2399, **images)
    assert (counts["out"], counts["dropped"]) == (3, {"image": 6})
    assert "Image size (2400 pixels): at most 2,399 are allowed" in (tmp_path / "a" / "dropped.jsonl").read_text()
    counts = run("llava", source, tmp_path / "b", max_image_pixels=2400, **images)
    assert (counts["out"], counts["dropped"]) == (9, {})
    with pytest.raises(UserError, match="begun with max_image_pixels 2400 and this command has 100000000"):
        run("llava", source, tmp_path / "b", **images)


def test_a_high_limit_of_an_import_reaches_its_totals(tmp_path):
    source, images = llava_source(tmp_path / "llava", 9), {"images": str(tmp_path / "llava" / "fotos")}
    (tmp_path / "llava" / "fotos" / "1.jpg").write_bytes(bomb())  # whatever its name; its header is all that is read
    run("llava", source, tmp_path / "out", max_image_pixels=900_000_000, **images)
    totals = read_totals(tmp_path / "out")
    assert totals.unreadable_images == 0 and (30_000, 30_000, 1) in totals.sizes.items()
    scanned = scan(tmp_path / "out", max_image_pixels=900_000_000)
    assert scanned.unreadable_images == 0 < scan(tmp_path / "out", max_image_pixels=PIXELS).unreadable_images


def test_an_import_of_another_limit_or_format_is_refused(tmp_path):
    source, images = llava_source(tmp_path / "llava", 9), {"images": str(tmp_path / "llava" / "fotos")}
    run("llava", source, tmp_path / "out", **images)
    begun = tmp_path / "out" / "import.json"
    with pytest.raises(UserError, match="begun with max_image_pixels 100000000 and this command has 5"):
        run("llava", source, tmp_path / "out", max_image_pixels=5, **images)
    settings = json.loads(begun.read_text())
    for version in (1, None):
        begun.write_text(json.dumps(settings | {"version": version}))
        with pytest.raises(UserError, match=f"{begun} has format {version}, expected 2: remove {begun.parent} and"):
            run("llava", source, tmp_path / "out", **images)


def test_an_index_of_another_limit_is_refused(folder, assets, load, tmp_path):
    # Of a higher one, too: training would refuse a sample that the index holds, in the middle of the run.
    make_index(folder, assets, tmp_path / "i", seq_length=512, max_image_pixels=LARGE)
    assert read_head(tmp_path / "i")["settings"]["max_image_pixels"] == LARGE
    encoder = load(folder).task_encoder.encoder
    common = {"chat": encoder.chat, "geometry": encoder.geometry, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    with pytest.raises(UserError, match=f"max_image_pixels was {LARGE} and is {SMALL}"):
        build_index_loader(tmp_path / "i", folder, seq_length=512, max_image_pixels=SMALL, **common)


def test_a_position_of_another_limit_is_refused(folder, load):
    state = load(folder).state()
    with pytest.raises(UserError, match=f"max_image_pixels was {PIXELS} and is {SMALL}"):
        load(folder, max_image_pixels=SMALL).restore(state)
    load(folder).restore(state)


def test_a_limit_above_pillows_own_works_in_silence(monkeypatch):
    data = {kind: picture(90, 61, kind=kind) for kind in ("JPEG", "GIF", "BMP")}
    maker = TileMaker(None, PIXELS)
    for own in (LARGE // 2 - 1, LARGE - 1):  # Pillow raises above twice its limit, and warns above it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", own)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for image in maker.decode(list(data.values())):
                assert isinstance(image, torch.Tensor) and image.shape == (3, 61, 90)
        assert Image.MAX_IMAGE_PIXELS == own
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_header(bomb(), 900_000_000).width == 30_000
        with pytest.raises(ImageError, match="900000000 pixels.: at most 899,999,999 are allowed"):
            read_header(bomb(), 899_999_999)


def test_what_is_inside_a_picture_is_limited_too():
    # Pillow decodes the picture of an icon when it opens it.
    inside = bomb()
    entry = bytes([16, 16, 0, 0, 1, 0, 24, 0]) + len(inside).to_bytes(4, "little") + (22).to_bytes(4, "little")
    with pytest.raises(ImageError, match=f"900000000 pixels.: at most {PIXELS:,} are allowed"):
        read_header(b"\0\0\1\0\1\0" + entry + inside, PIXELS)
    with pillow_limit(100), warnings.catch_warnings():
        warnings.simplefilter("error")
        Image._decompression_bomb_check((100, 1))
        with pytest.raises(Image.DecompressionBombError):
            Image._decompression_bomb_check((101, 1))


def test_pillows_own_limit_comes_back(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12345)
    enough, seen, good = threading.Event(), [], picture(90, 61)

    def read():
        while not enough.is_set():
            read_header(good, PIXELS)
            with pytest.raises(ImageError):
                read_header(b"nothing", PIXELS)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    import multiprocessing

    for _ in range(20):  # forked while threads read: the child has neither their limit nor a held lock
        process = multiprocessing.get_context("fork").Process(
            target=lambda: exit(0 if Image.MAX_IMAGE_PIXELS == 12345 and read_header(good, PIXELS).width == 90 else 1)
        )
        process.start()
        process.join(30)
        seen.append(process.exitcode)
        process.kill()
    enough.set()
    for thread in threads:
        thread.join()
    assert Image.MAX_IMAGE_PIXELS == 12345 and seen == [0] * 20


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "5"])
def test_what_is_no_number_of_pixels_is_refused(load, folder, value):
    with pytest.raises(UserError, match="max_image_pixels is .*: expected a number of pixels, 1 or more"):
        load(folder, max_image_pixels=value)
    with pytest.raises(UserError, match="x is .*"):
        check_max_pixels(value, "x")


@pytest.mark.parametrize("command", ["import llava none", "pack none --assets none", "view none --assets none"])
def test_the_commands_refuse_it_in_one_line(command, tmp_path, capsys):
    words = ["data", *command.split(), "--out", str(tmp_path / "out")]
    assert main([*words, "--max-image-pixels", "0"]) == 2
    expected = "error: --max-image-pixels is 0: expected a number of pixels, 1 or more\n"
    assert capsys.readouterr().err == expected and not (tmp_path / "out").exists()
