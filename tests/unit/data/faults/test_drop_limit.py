"""When dropped samples end a run, and in which words."""

import pytest

from nemo_amalia.data.faults.board import COLUMNS
from nemo_amalia.data.faults.drop_limit import merged, names, over_limit, summary


def counts(samples, **reasons):
    return {name: 0 for name in COLUMNS} | {"samples_in": samples} | reasons


def test_in_words():
    assert summary(counts(41_200, image=2, too_long=1)) == "3 of 41,200 dropped (2 image, 1 too_long)"


@pytest.mark.parametrize(
    ("source", "fraction", "ends"),
    [
        (counts(10, image=1), 0.001, False),  # one of the first ten
        (counts(10, image=2), 0.001, True),
        (counts(999, image=1), 0.001, False),
        (counts(41_000, image=41), 0.001, False),  # exactly the fraction
        (counts(41_000, image=42), 0.001, True),
        (counts(41_000, image=41, too_long=1), 0.001, True),  # all reasons together
        (counts(10, quarantined=10), 0.001, False),
        (counts(2000, quarantined=1000, image=2), 0.001, True),  # of the thousand that were not left out
        (counts(10**6, image=1), 0.0, True),
        (counts(100, image=100), 1.0, False),
    ],
)
def test_the_limit(source, fraction, ends):
    assert (over_limit({"/d/a": source}, {}, fraction) is not None) == ends


def test_the_line_names_source_fraction_limit_and_worst_shards():
    sources = {"/d/a": counts(5000, image=1), "/d/b": counts(2000, image=9, record=1), "/d/c": counts(1500, image=3)}
    shards = {("/d/b", f"s-{i}.tar"): i for i in range(1, 8)} | {("/d/a", "x.tar"): 99, ("", "other shards"): 2}
    line = over_limit(sources, shards, 0.001)
    assert line.startswith("source b dropped 0.50% of its samples and data.max_dropped_fraction allows 0.10%")
    assert "(1 more sources did too)" in line and "10 of 2,000 dropped (9 image, 1 record)" in line
    assert "worst shards: s-7.tar 7, s-6.tar 6, s-5.tar 5, s-4.tar 4, s-3.tar 3 and 2 more" in line
    assert "and 2 samples of any source in shards beyond the table" in line
    assert "x.tar" not in line and "\n" not in line


def test_replicas_are_judged_together():
    one, two = {"/d/a": counts(900, image=1)}, {"/d/a": counts(900, image=1), "/d/b": counts(5)}
    assert over_limit(one, {}, 0.001) is None and over_limit(two, {}, 0.001) is None
    both = merged([one, two])
    assert both["/d/a"]["samples_in"] == 1800 and both["/d/b"]["samples_in"] == 5
    assert over_limit(both, {}, 0.001) is not None
    assert "image" in one["/d/a"] and one["/d/a"]["image"] == 1  # the parts stay as they were


def test_folders_of_one_name_are_told_apart():
    assert names(["/d/x/train", "/d/y/train", "/d/z"]) == {
        "/d/x/train": "x/train",
        "/d/y/train": "y/train",
        "/d/z": "z",
    }
    assert names(["teste", ""]) == {"teste": "teste", "": ""}
