import hashlib
import tarfile

import pytest
from chatml import conversation

from nemo_amalia.data.shards.check import check_folder
from nemo_amalia.data.shards.metadataset import write_blend
from nemo_amalia.data.shards.write import image_suffix, write_shards
from nemo_amalia.utils.errors import UserError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "data"
    return write_shards((conversation(i, images=i % 3) for i in range(25)), folder, samples_per_shard=10)


def digest(folder):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tar"))]


def test_what_was_written(written):
    folder = written.folder
    assert (written.num_samples, written.num_images, written.num_shards) == (25, 24, 3)
    assert written.num_bytes == sum(path.stat().st_size for path in folder.glob("*.tar"))
    with tarfile.open(folder / "shard-000002.tar") as tar:
        assert tar.getnames()[-3:] == ["s-00023.0.jpg", "s-00023.1.jpg", "s-00024.json"]
    assert check_folder(folder) == folder
    assert [path.name for path in folder.parent.iterdir()] == ["data"]  # no partial folder is left


def test_equal_samples_give_equal_shards(written, tmp_path):
    again = write_shards((conversation(i, images=i % 3) for i in range(25)), tmp_path / "b", 10)
    assert digest(again.folder) == digest(written.folder)


def broken():
    yield conversation(0)
    raise RuntimeError("disco cheio")


@pytest.mark.parametrize(
    ("samples", "error", "text"),
    [
        ([], UserError, "there are no samples to write"),
        ([conversation(0), conversation(0)], UserError, "key 's-00000' .* is repeated"),
        ([conversation(0) | {"key": "a.b"}], UserError, "may hold only letters"),
        ([conversation(0) | {"images": [b"x"]}], UserError, "are no image"),
        (broken(), RuntimeError, "disco cheio"),
    ],
)
def test_a_failed_write_leaves_nothing(samples, error, text, tmp_path):
    with pytest.raises(error, match=text):
        write_shards(samples, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written(tmp_path, written):
    with pytest.raises(UserError, match="exists and is not empty"):
        write_shards([conversation(0)], written.folder)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_shards([conversation(0)], tmp_path / "file" / "out")


def test_folders_that_cannot_be_read(tmp_path, written):
    with pytest.raises(UserError, match="does not exist"):
        check_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no .tar shard"):
        check_folder(tmp_path)
    (tmp_path / "a.tar").touch()
    with pytest.raises(UserError, match=f"no index: run `energon prepare {tmp_path} --non-interactive"):
        check_folder(tmp_path)
    with pytest.raises(UserError, match="is a file: expected"):
        check_folder(tmp_path / "a.tar")


def test_a_missing_shard_is_named(tmp_path):
    folder = write_shards((conversation(i, images=0) for i in range(4)), tmp_path / "d", 2).folder
    (folder / "shard-000001.tar").unlink()
    with pytest.raises(UserError, match="lacks 1 of its 2 shards .shard-000001.tar first"):
        check_folder(folder)


def test_blends_that_cannot_work(tmp_path, written):
    with pytest.raises(UserError, match="weights must be positive"):
        write_blend([(written.folder, 0)], tmp_path / "b.yaml")
    with pytest.raises(UserError, match="names no folder"):
        write_blend([], tmp_path / "b.yaml")
    with pytest.raises(UserError, match="does not exist"):
        write_blend([(tmp_path / "x", 1)], tmp_path / "b.yaml")


@pytest.mark.parametrize("head", [b"GIF89a", b"BM1234", b"II*\0", b"RIFF\0\0\0\0WEBP", b"\x89PNG\r\n", b"\xff\xd8\xff"])
def test_suffixes(head):
    assert image_suffix(head) in ("gif", "bmp", "tif", "webp", "png", "jpg")
