"""The launcher itself: results in rank order, a failing rank's words, and every rank's stack on a hang."""

import time

import pytest
from launcher import launch


def sum_of_ranks(base):
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    total = torch.tensor(float(base + dist.get_rank()))
    dist.all_reduce(total)
    return dist.get_rank(), total.item()


def fail_on_rank_one():
    import os

    if os.environ["RANK"] == "1":
        raise ValueError("rank one has a reason")
    time.sleep(30)


def hang_here():
    time.sleep(60)


def test_results_come_in_rank_order():
    assert launch(sum_of_ranks, 2, {"base": 10}) == [(0, 21.0), (1, 21.0)]


def test_a_failing_rank_is_quoted_and_the_others_are_stopped():
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="rank one has a reason"):
        launch(fail_on_rank_one, 2)
    assert time.monotonic() - start < 20


def test_a_hang_shows_the_stacks():
    with pytest.raises(RuntimeError, match="hang_here") as caught:
        launch(hang_here, 2, timeout=15)  # a busy machine takes seconds to reach hang_here
    assert "rank 0" in str(caught.value) and "rank 1" in str(caught.value)
