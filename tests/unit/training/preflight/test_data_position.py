"""A checkpoint whose data position is missing, or of other ranks, is refused before any rank starts."""

import pytest

from nemo_amalia.config.schema import RunConfig
from nemo_amalia.training.preflight.position import check_position, resumed_step, starts_anew
from nemo_amalia.utils.errors import UserError


@pytest.fixture
def run(tmp_path):
    """A run folder saved at step 30 by two data-parallel ranks of two TP ranks each."""
    run = RunConfig(run_dir=str(tmp_path))
    run.parallel.tensor = 2
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("30\n")
    positions = tmp_path / "data_state" / "iter_0000030"
    positions.mkdir(parents=True)
    for rank in range(2):
        (positions / f"train_dataloader_dprank{rank:03d}.pt").touch()
    return run


def test_the_same_ranks_go_on(run, tmp_path):
    check_position(run, 4)
    assert resumed_step(run) == 30
    check_position(RunConfig(run_dir=str(tmp_path / "new")), 8)  # nothing to resume


@pytest.mark.parametrize(("world", "ranks"), [(8, 4), (2, 1)])
def test_more_or_fewer_ranks_are_refused(run, world, ranks):
    with pytest.raises(UserError) as info:
        check_position(run, world)
    message = str(info.value)
    assert f"of 2 data-parallel ranks ({run.run_dir}/data_state/iter_0000030) and this run has {ranks}" in message
    assert "resume with 4 ranks, or begin the data again with data.start_anew_at=30" in message and "\n" not in message


def test_a_missing_position_is_refused(run, tmp_path):
    (tmp_path / "data_state").rename(tmp_path / "lost")
    with pytest.raises(UserError, match="step 30 has no position in the data: .*iter_0000030 is missing or empty"):
        check_position(run, 4)


def test_the_user_may_begin_again_at_this_step_and_at_no_other(run, tmp_path):
    run.data.start_anew_at = 30
    assert starts_anew(run)
    check_position(run, 8)
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("60")  # the next resume is exact again
    assert not starts_anew(run)
    with pytest.raises(UserError, match="step 60 has no position"):
        check_position(run, 8)
