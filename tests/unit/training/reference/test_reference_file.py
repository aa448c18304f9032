"""The reference file: refused by name where it is missing, partial, torn, of another reference or of other pairs."""

from types import SimpleNamespace

import pytest
import torch

from nemo_amalia.training.reference.file import (
    FileReference,
    check_fingerprint,
    default_path,
    parts_folder,
    read_table,
    write_table,
)
from nemo_amalia.utils.errors import UserError

COMMAND = "amalia reference --checkpoint base --data pairs"
FINGERPRINT = {"checkpoint": "abc", "tiling": True, "pinpoints": [[32, 64]]}
COLUMNS = {
    "key": ["s.tar/a", "s.tar/b"],
    "chosen_logp": [-1.5, -2.25],
    "rejected_logp": [-3.0, -4.0],
    "chosen_tokens": [3, 4],
    "rejected_tokens": [5, 6],
}


@pytest.fixture
def path(tmp_path):
    write_table(tmp_path / "pairs.reference.parquet", COLUMNS, FINGERPRINT)
    return tmp_path / "pairs.reference.parquet"


def refused(said, function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert said in str(caught.value) and COMMAND in str(caught.value) and "\n" not in str(caught.value)


def ask(reference, keys, tokens):
    answers = SimpleNamespace(tokens=torch.tensor(tokens))
    return reference.log_probs(SimpleNamespace(keys=keys), answers, {}, None)


def test_pairs_are_found_by_key_in_any_order(path):
    reference = FileReference(path, COMMAND, FINGERPRINT)
    assert ask(reference, ["s.tar/b", "s.tar/a"], [4, 6, 3, 5]).tolist() == [-2.25, -4.0, -1.5, -3.0]


def test_pairs_that_it_does_not_have(path):
    reference = FileReference(path, COMMAND)
    refused("has no pair s.tar/c (1 of this micro-batch's 2)", ask, reference, ["s.tar/a", "s.tar/c"], [3, 5, 1, 1])
    refused("the rejected answer of pair s.tar/b has 7 tokens and had 6", ask, reference, ["s.tar/b"], [4, 7])


def test_another_reference_is_named(path):
    wanted = FINGERPRINT | {"checkpoint": "xyz", "precision": "fp32"}
    refused("checkpoint was 'abc' and is 'xyz'", FileReference, path, COMMAND, wanted)
    refused("precision was None and is 'fp32'", FileReference, path, COMMAND, wanted)
    check_fingerprint(path, read_table(path, COMMAND)[1], FINGERPRINT, COMMAND)


@pytest.mark.parametrize("left", [0, 3, 0.5, 0.99])
def test_a_torn_file(path, left):
    whole = path.read_bytes()
    path.write_bytes(whole[: left if isinstance(left, int) else int(left * len(whole))])
    refused("is torn", read_table, path, COMMAND)


def test_missing_and_partial(path):
    path.unlink()
    refused("there is no reference file", read_table, path, COMMAND)
    write_table(parts_folder(path) / "s.tar.parquet", COLUMNS, FINGERPRINT)
    refused("is not complete", read_table, path, COMMAND)


def test_no_pair_at_all_is_no_reference(path):
    """`amalia reference` on conversations: a file without pairs would be refused much later, by stage 3."""
    from nemo_amalia.platform import prepare

    prepare()  # what joins the parts is beside the model, and imports Megatron
    from nemo_amalia.training.reference.run import join

    path.unlink()
    for name in ("s.tar", "t.tar"):
        write_table(parts_folder(path) / f"{name}.parquet", {key: [] for key in COLUMNS}, FINGERPRINT)
    with pytest.raises(UserError, match="no pair was left of 2 shards, .* stage 3 takes preference pairs"):
        join(path, ["s.tar", "t.tar"], FINGERPRINT, COMMAND)
    assert not path.exists()


def test_a_parquet_of_somebody_else(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"key": ["a"]}), path)
    refused("was not written by `amalia reference`", read_table, path, COMMAND)


def test_it_lies_beside_the_data(tmp_path):
    (tmp_path / "mix.yaml").touch()
    assert default_path(tmp_path / "pairs") == tmp_path / "pairs.reference.parquet"
    assert default_path(tmp_path / "mix.yaml") == tmp_path / "mix.reference.parquet"
