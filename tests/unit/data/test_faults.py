import os
import signal

import pytest
import torch

from nemo_amalia.data.faults import LOG_SLOTS, REASONS, FaultBoard


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
