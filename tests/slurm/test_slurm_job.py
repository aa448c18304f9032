"""slurm/stage2_128gpu.sh on a real Slurm: the losses are those of an undisturbed run, bit by bit.

No tolerance: the same sums in the same order on the same machine, as in tests/integration/test_resume.py.
"""

import signal
import time

import pytest
from launcher import launch
from slurm_cluster import INSTALL, Cluster, missing
from slurm_jobs import WORDS, Job, metrics, prepare_inputs, train_plain

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"Slurm is not installed ({', '.join(missing())}): {INSTALL}")
STEPS, SAVE_EVERY = 8, 3


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    launch(prepare_inputs, 1, {"folder": str(folder)})
    return folder


@pytest.fixture
def cluster(tmp_path):
    with Cluster(tmp_path / "cluster", nodes=3) as cluster:
        yield cluster


def words_of(inputs, data="data", *more):
    places = [f"model.checkpoint={inputs}/checkpoint", f"data.path={inputs}/{data}"]
    return [*WORDS, *places, f"stage.train_steps={STEPS}", f"checkpoint.save_interval={SAVE_EVERY}", *more]


def undisturbed(inputs, ranks, *more):
    """Metrics of the same run started by tests.launcher, without Slurm."""
    place = inputs / f"plain-{ranks}"
    if not place.exists():
        words = [*words_of(inputs, "data", *more), f"run_dir={place}"]
        launch(train_plain, ranks, {"words": words}, timeout=400)
    return metrics(place)


@pytest.mark.timeout(900)
def test_a_killed_rank_is_requeued_without_its_node(cluster, inputs, tmp_path):
    """The short form: one disturbance, two starts of a rank on each of two nodes."""
    job = Job(cluster, tmp_path / "run", words_of(inputs, "data", "parallel=tp2"), tasks_per_node=1)
    job.until_step(SAVE_EVERY + 1)
    job.kill_rank(1)
    job.until_requeued()
    assert "[doctor] 2 ranks on 2 nodes, no GPU" in job.said() and "Gloo (no GPU was checked)" in job.said()
    assert "start 1 failed: n2: task 1: Killed" in job.said(), job.said()
    assert job.cluster.job(job.number)["ExcNodeList"] == "n2"
    assert job.until_ended() == "COMPLETED", job.said()
    assert f"resumed after step {SAVE_EVERY}" in job.said() and "on n[1,3]" in job.said()
    assert metrics(job.run_dir) == undisturbed(inputs, 2, "parallel=tp2")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_signal_time_limit_and_a_lost_node(cluster, inputs, tmp_path):
    """2 nodes x 2 tasks, three disturbances, four starts: 10 minutes. A rank is frozen in the slow half of each."""
    words = words_of(inputs, "data", "parallel=tp2")
    options = ["--time=60", "--signal=B:USR1@60"]
    job = Job(cluster, tmp_path / "run", words, tasks_per_node=2, options=options, preflight=False)
    job.until_step(2)
    cluster.run("scancel", "--signal=USR1", job.number)
    job.until_requeued()
    assert "[sft] stopped by a signal, saved step" in job.said()
    assert cluster.job(job.number)["ExcNodeList"] == "(null)"

    first = len(metrics(job.run_dir))
    job.until_step(first + 1)
    frozen = job.rank(0)
    stop(frozen)
    minutes = int((time.time() - started(cluster, job) + 45) // 60) + 1  # so many seconds are left to save in
    cluster.run("scontrol", "update", f"JobId={job.number}", f"TimeLimit={minutes}")
    job.until(lambda: "[job] asked to stop" in job.said(), 150, "signal before the limit")
    go_on(frozen)
    job.until_requeued()
    assert job.said().count("[sft] stopped by a signal, saved step") == 2
    cluster.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=60")

    second = len(metrics(job.run_dir))
    job.until_step(second + 1)
    stop(job.rank(0))
    cluster.kill_node("n2")
    job.until_requeued(180)
    assert job.until_ended() == "COMPLETED", job.said()
    assert "on n[1,3]" in job.said()
    assert metrics(job.run_dir) == undisturbed(inputs, 4, "parallel=tp2")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_rank_that_raises_ends_the_job_with_its_message(cluster, inputs, tmp_path):
    """A sample that cannot be trained on, which one replica meets: the other waits for it in a collective."""
    job = Job(cluster, tmp_path / "run", words_of(inputs, "bad"), tasks_per_node=1, preflight=False)
    job.until(lambda: "\nerror: " in job.said(), 400, "error")
    raised = time.monotonic()
    assert job.until_ended(60) == "FAILED"
    assert time.monotonic() - raised < 60
    lines = job.said().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert "sem-imagem" in errors[0], job.said()
    assert lines[-1] == "[job] refused; not requeued, the same command would end so again"


def test_what_cannot_run_is_refused_before_a_rank_starts(cluster, inputs, tmp_path):
    job = Job(cluster, tmp_path / "run", words_of(inputs, "data", "parallel.tensor=3"), tasks_per_node=1)
    assert job.until_ended(120) == "FAILED"
    errors = [line for line in job.said().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "does not divide the world of 2 ranks" in errors[0]
    assert not list(tmp_path.glob("run/logs/rank_*"))


def stop(pid):
    import os

    os.kill(pid, signal.SIGSTOP)


def go_on(pid):
    import os

    os.kill(pid, signal.SIGCONT)


def started(cluster, job):
    """Seconds since 1970 at which this start began."""
    text = cluster.job(job.number)["StartTime"]
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
