"""Lists of samples to leave out: written, read again, and refused when they are something else."""

import json

import pytest

from nemo_amalia.data.faults.board import Fault
from nemo_amalia.data.faults.quarantine import Quarantine, write_faults
from nemo_amalia.utils.errors import UserError


def folder_of(tmp_path, name, index):
    (tmp_path / name / ".nv-meta").mkdir(parents=True)
    (tmp_path / name / ".nv-meta" / "index.uuid").write_text(index + "\n")
    return str(tmp_path / name)


def test_a_sample_is_known_by_its_index_or_its_folder(tmp_path):
    here, moved, other = (folder_of(tmp_path, *pair) for pair in (("a", "u-1"), ("b", "u-1"), ("c", "u-2")))
    with open(tmp_path / "0.jsonl", "w") as out:
        write_faults(out, [Fault("s.tar/k", "image", "má: ção", here, "s.tar")], missing=4)
    line, count = map(json.loads, (tmp_path / "0.jsonl").read_text().splitlines())
    assert line == {
        "folder": here, "index": "u-1", "shard": "s.tar", "key": "k", "reason": "image", "message": "má: ção",
    }  # fmt: skip
    assert count == {"unlisted": 4}
    quarantine = Quarantine(tmp_path / "0.jsonl")
    assert len(quarantine) == 1
    assert quarantine.holds(here, "s.tar", "s.tar/k") and quarantine.holds(moved, "s.tar", "k")
    assert not quarantine.holds(other, "s.tar", "k")
    assert not quarantine.holds(here, "t.tar", "k") and not quarantine.holds(here, "s.tar", "l")


def test_a_folder_of_lists_is_one_list(tmp_path):
    one, two = Fault("s/a", "image", "", "/d", "s"), Fault("s/b", "image", "", "/d", "s")
    for name, faults in (("0", [one]), ("1", [two, one])):
        with open(tmp_path / f"{name}.jsonl", "w") as out:
            write_faults(out, faults)
    both = Quarantine(tmp_path)
    assert len(both) == 2 and both.fingerprint == Quarantine(tmp_path / "1.jsonl").fingerprint
    assert both.fingerprint != Quarantine(tmp_path / "0.jsonl").fingerprint


def test_what_is_no_list_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no .jsonl file and no folder of them"):
        Quarantine(tmp_path)
    for text in ("{", "[]", '{"shard": "s"}', "7"):
        (tmp_path / "x.jsonl").write_text(text + "\n")
        with pytest.raises(UserError, match="line 1 of .*x.jsonl is not of a quarantine list") as info:
            Quarantine(tmp_path / "x.jsonl")
        assert "\n" not in str(info.value)
