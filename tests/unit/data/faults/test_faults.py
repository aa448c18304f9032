import os
import signal

import pytest
import torch

from nemo_amalia.data.faults.board import LOG_SLOTS, QUARANTINED, REASONS, SOURCES, Fault, FaultBoard


def test_counts_and_log():
    board = FaultBoard()
    board.count_in(3)
    board.count_out(2)
    board.drop("a.tar/s-1", "image", "truncado: ção " * 400)
    assert board.dropped() == {"image": 1}
    totals = board.totals()
    assert totals["samples_in"] == totals["samples_out"] + sum(totals[name] for name in REASONS)
    (fault,) = board.log()
    assert (fault.key, fault.reason) == ("a.tar/s-1", "image") and fault.message.startswith("truncado: ção")


def test_the_log_is_bounded_and_keeps_the_newest():
    board = FaultBoard()
    for index in range(LOG_SLOTS + 5):
        board.drop(str(index), "other")
    keys = {fault.key for fault in board.log()}
    assert len(keys) == LOG_SLOTS and str(LOG_SLOTS + 4) in keys and "0" not in keys
    assert board.dropped() == {"other": LOG_SLOTS + 5}


def test_an_unknown_reason_is_an_error():
    with pytest.raises(ValueError):
        FaultBoard().drop("k", "bad luck")


class Counting(torch.utils.data.IterableDataset):
    def __init__(self, board, victim):
        self.board, self.victim = board, victim

    def __iter__(self):
        worker = torch.utils.data.get_worker_info().id
        for index in range(100):
            self.board.count_in()
            self.board.drop(f"{worker}-{index}", "image", "x")
            if worker == self.victim and index == 49:
                os.kill(os.getpid(), signal.SIGKILL)
        yield worker


def test_the_counts_of_a_killed_worker_are_not_lost():
    board = FaultBoard(2)
    loader = torch.utils.data.DataLoader(
        Counting(board, victim=1), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    with pytest.raises(RuntimeError, match="killed by signal|exited unexpectedly"):
        list(loader)
    row = board._sources.counts[:, :, 0].sum(axis=1).tolist()
    assert row[2] == 50 and row[0] == 0  # the killed worker's; nothing counted in this process
    assert any(fault.key == "1-49" for fault in board.log())
    board.count_in()  # and nobody holds a lock
    board.fail("linha única")
    assert board.failure() == "linha única"


def test_every_source_keeps_its_own_sum():
    board = FaultBoard()
    board.count_in(5, "/d/azulejos")
    board.count_in(2, "/d/legendas")
    board.count_out(3, "/d/azulejos")
    board.drop("a.tar/1", "image", "x", "/d/azulejos", "a.tar")
    board.drop("a.tar/2", "too_long", "x", "/d/azulejos", "a.tar")
    board.drop("b.tar/1", QUARANTINED, "", "/d/legendas", "b.tar")
    sources = board.by_source()
    assert set(sources) == {"/d/azulejos", "/d/legendas"}
    azulejos = sources["/d/azulejos"]
    assert azulejos["samples_in"] == azulejos["samples_out"] + azulejos["image"] + azulejos["too_long"] == 5
    assert sources["/d/legendas"][QUARANTINED] == 1 and board.by_shard() == {("/d/azulejos", "a.tar"): 2}
    assert [fault.source for fault in board.log()] == ["/d/azulejos"] * 2  # quarantined is not listed again
    assert board.totals()["samples_in"] == 7 and board.dropped() == {"image": 1, "too_long": 1, QUARANTINED: 1}


def test_tables_that_overflow_lose_names_and_no_counts():
    board = FaultBoard()
    for index in range(SOURCES + 3):
        board.count_in(1, f"fonte-{index}")
        board.drop("k", "other", "", f"fonte-{index}", f"s-{index}.tar")
    sources, shards = board.by_source(), board.by_shard()
    assert len(sources) == SOURCES + 1 and sources["other sources"]["samples_in"] == 3
    assert sources["other sources"]["other"] == 3 and shards[("", "other shards")] == 3
    assert sum(counts["samples_in"] for counts in sources.values()) == board.totals()["samples_in"] == SOURCES + 3
    assert sum(shards.values()) == SOURCES + 3


def test_the_log_says_what_is_new_and_what_it_no_longer_holds():
    board = FaultBoard()
    board.drop("a", "other", "uma\x1fmensagem", "s", "x.tar")
    faults, missing, seen = board.log_since([0])
    assert (faults, missing) == ([Fault("a", "other", "uma\x1fmensagem", "s", "x.tar")], 0)
    assert board.log_since(seen) == ([], 0, seen)
    for index in range(LOG_SLOTS + 5):
        board.drop(str(index), "other")
    faults, missing, _ = board.log_since(seen)
    assert [fault.key for fault in faults] == [str(index) for index in range(5, LOG_SLOTS + 5)] and missing == 5


def test_sources_in_another_alphabet_and_without_a_name():
    board = FaultBoard()
    board.count_in(1, "/dados/" + "ã" * 900)
    board.count_in(1)
    board.drop("k", "image", "m", "/dados/" + "ã" * 900, "ç" * 400)
    long, unnamed = board.by_source()
    assert long.startswith("ã") and unnamed == "unnamed source"
    assert sum(board.by_shard().values()) == 1 and board.by_source()[long]["image"] == 1
    board.begin("a ler " + "ã" * 9000)
    assert board._doing[0].any() and board.doing(-1).startswith("a ler ãã")
