"""Output folders appear whole or not at all; safetensors are read and written shard by shard."""

import json
import os

import pytest
import torch

from nemo_amalia.bridge.tensor_files import TensorFolder, write_shards
from nemo_amalia.utils.errors import UserError
from nemo_amalia.utils.files import atomic_folder


def test_a_folder_appears_when_it_is_done(tmp_path):
    out = tmp_path / "new" / "out"
    with atomic_folder(out) as partial:
        (partial / "file").write_text("done")
        assert not out.exists()
    assert (out / "file").read_text() == "done" and os.listdir(out.parent) == ["out"]


def test_nothing_is_left_of_a_failure(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out") as partial:
        (partial / "file").write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_may_be_given(tmp_path):
    (tmp_path / "out").mkdir()
    with atomic_folder(tmp_path / "out") as partial:
        (partial / "file").touch()
    assert os.listdir(tmp_path / "out") == ["file"]


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(UserError, match="exists and is not empty"), atomic_folder(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["mine"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), atomic_folder(tmp_path / "file" / "out"):
        pass


def some_tensors():
    return {name: torch.arange(100.0) + i for i, name in enumerate("abcde")}


def test_shards_hold_what_they_are_allowed_to(tmp_path):
    assert write_shards(some_tensors().items(), tmp_path, shard_bytes=900) == 2000
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == names
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2000 and index["weight_map"]["e"] == names[2]
    folder = TensorFolder(tmp_path)
    assert sorted(folder.keys()) == list("abcde") and "a" in folder and "z" not in folder
    assert all(torch.equal(folder[name], tensor) for name, tensor in some_tensors().items())


def test_only_one_shard_is_alive_at_a_time(tmp_path):
    import gc
    import weakref

    alive = []

    def stream():
        for name in "abcdef":
            tensor = torch.zeros(100)
            alive.append(weakref.ref(tensor))
            yield name, tensor
            del tensor
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1  # write_shards keeps copies of one shard, no source

    write_shards(stream(), tmp_path, shard_bytes=800)
    assert len(list(tmp_path.glob("model-*"))) == 3


def test_one_shard_has_no_index(tmp_path):
    write_shards([("a", torch.zeros(3)[:2]), ("b", torch.zeros(2, 2).t())], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_no_tensor_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no tensor to write"):
        write_shards([], tmp_path)


def test_missing_and_cut_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no .safetensors file"):
        TensorFolder(tmp_path)
    write_shards(some_tensors().items(), tmp_path, shard_bytes=900)
    path = tmp_path / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="model-00002-of-00003.safetensors cannot be read"):
        TensorFolder(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="model-00002-of-00003.safetensors cannot be read"):
        TensorFolder(tmp_path)
