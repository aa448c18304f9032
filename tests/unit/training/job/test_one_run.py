"""A run_dir has one writer, and processes end with what started them, also by kill -9."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemo_amalia.training.job.run_lock import LOCK, claim
from nemo_amalia.utils.errors import UserError

HOLD = """
import sys, time
from nemo_amalia.training.job.run_lock import claim
claim(sys.argv[1])
print('held', flush=True)
"""
PARENT = """
import signal, subprocess, sys, time
from functools import partial
from nemo_amalia.utils.process import end_with_parent
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                         preexec_fn=partial(end_with_parent, signal.SIGTERM))
print(child.pid, flush=True)
time.sleep(60)
"""


def start(code, *words):
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def test_a_folder_is_claimed_by_one_process_and_free_when_it_is_killed(tmp_path):
    process, said = start(HOLD + "time.sleep(60)", str(tmp_path))
    try:
        assert said == "held"
        for keep in (False, True):
            with pytest.raises(UserError, match=rf"is being written by process {process.pid} on .*: wait until"):
                claim(tmp_path, keep)
    finally:
        process.kill()
        process.wait()
    claim(tmp_path, keep=False)
    again, said = start(HOLD, str(tmp_path))  # looking claimed nothing
    assert again.wait() == 0 and said == "held"
    assert (tmp_path / LOCK).read_text() == f"process {again.pid} on {os.uname().nodename}"


def test_a_child_ends_with_its_killed_parent():
    process, child = start(PARENT)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while running(int(child)):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
