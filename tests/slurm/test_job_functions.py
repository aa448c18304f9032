"""Functions of slurm/job.sh that need no Slurm, on what srun was seen to write."""

import subprocess

import pytest
from slurm_jobs import ROOT

KILLED = "srun: error: n2: task 1: Killed"
PEER = "srun: error: n1: task 0: Exited with exit code 76"
ENDED = "srun: error: n3: tasks 2-3: Terminated"
REFUSED = "srun: error: n3: task 2: Exited with exit code 2"


def first_failure(lines, tmp_path):
    log = tmp_path / "console.log"
    log.write_text("an earlier step\nsrun: error: n9: task 9: Killed\n")
    begin = log.stat().st_size + 1
    log.write_text(log.read_text() + "\n".join(["[sft] step 3", *lines]) + "\n")
    script = f'source slurm/job.sh; log="{log}" step_from={begin}; first_failure'
    return subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([KILLED, PEER, ENDED], KILLED),
        ([PEER, KILLED, ENDED], KILLED),  # a busy node's slurmd reports late
        ([PEER, ENDED, REFUSED], REFUSED),
        ([PEER, ENDED], PEER),
        ([ENDED], ENDED),
        ([], ""),
    ],
)
def test_the_task_that_others_lost_is_named(lines, found, tmp_path):
    assert first_failure(lines, tmp_path) == found.removeprefix("srun: error: ")


@pytest.mark.parametrize(
    ("book", "starts"),
    [
        (["7 0 0", "7 1 0", "7 2 0"], 3),
        (["7 0 0", "7 1 20", "7 2 20"], 0),  # step 0 is saved now: of a folder that was emptied
        (["6 0 0", "7 0 0"], 1),  # another job's starts are not this job's
        (["7 0 0", "7 1 40", "7 2 0"], 1),
    ],
)
def test_starts_without_progress_are_counted(book, starts, tmp_path):
    (tmp_path / "attempts.txt").write_text("".join(f"{line} 2026-01-01T00:00:00 n[1-2]\n" for line in book))
    script = f"source slurm/job.sh; run_dir={tmp_path} book=$run_dir/attempts.txt; starts_without_progress"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"SLURM_JOB_ID": "7", "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout.strip() == str(starts), done.stderr
