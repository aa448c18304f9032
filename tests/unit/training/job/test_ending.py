"""How a rank ends and who it believes to be: by real processes with real signals and Slurm's real variables."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from nemo_amalia.data.loading.workers import WorkerLostError
from nemo_amalia.training.job.environment import inside_a_job, restart_patience, slurm_environment
from nemo_amalia.training.job.rank_exit import PEER_PATIENCE, code_of, let_the_culprit_speak
from nemo_amalia.training.job.run_lock import claim
from nemo_amalia.utils.errors import FAILED, PEER_LOST, STOPPED, USER_ERROR, ConfigError

# As Slurm 22.05 sets them; a batch script has the first three, the ranks of srun all.
BATCH = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
RANK = BATCH | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "1"}
STOP = """
import os, signal, sys, time
from nemo_amalia.training.job.rank_exit import stop_on_usr1
stop_on_usr1()
if sys.argv[1] == "trains":
    signal.signal(signal.SIGTERM, lambda *_: (print("saves", flush=True), os._exit(75)))
if sys.argv[1] == "worker" and os.fork() == 0:
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(3)
    os.write(1, b"worker lives\\n")
    os._exit(0)
os.write(1, b"ready\\n")
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
    for name in {*RANK, "RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_RESTART_COUNT"}:
        monkeypatch.delenv(name, raising=False)


def test_a_batch_script_is_no_rank_and_a_task_of_srun_is(monkeypatch):
    assert not inside_a_job()
    for values, inside in ((BATCH, False), (RANK, True), ({"RANK": "0"}, True)):
        with monkeypatch.context() as place:
            for name, value in values.items():
                place.setenv(name, value)
            assert inside_a_job() is inside
            slurm_environment()
            ours = {name: os.environ.pop(name, None) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        if values is BATCH:
            assert not any(ours.values())
        if values is RANK:
            assert ours == {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}


def test_codes():
    assert code_of(ConfigError("a layout")) == USER_ERROR == 2
    assert code_of(ConfigError("run_dir=(SIGTERM): Broken pipe")) == USER_ERROR  # a user may write any words
    assert code_of(ValueError("a library's")) == code_of(json.JSONDecodeError("a library's", "", 0)) == FAILED == 1
    assert code_of(RuntimeError("NCCL")) == FAILED and code_of(WorkerLostError("killed")) == FAILED
    assert code_of(RuntimeError("[gloo] Connection closed by peer [10.0.0.1]:4711")) == PEER_LOST
    assert code_of(SystemExit(STOPPED)) == STOPPED and code_of(SystemExit()) == 0 and code_of(SystemExit("why")) == 1


def test_who_lost_a_peer_speaks_later():
    begin = time.monotonic()
    let_the_culprit_speak(ConfigError("Broken pipe"))
    let_the_culprit_speak(RuntimeError("shapes differ"))
    assert time.monotonic() - begin < 1
    let_the_culprit_speak(RuntimeError("Connection closed by peer [10.0.0.1]:4711"))
    assert time.monotonic() - begin >= PEER_PATIENCE


def start(kind):
    process = subprocess.Popen([sys.executable, "-c", STOP, kind], stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


@pytest.mark.parametrize(("kind", "said"), [("loads", ""), ("trains", "saves\n")])
def test_usr1_ends_a_rank_and_one_that_trains_saves(kind, said):
    process, ready = start(kind)
    assert ready == "ready"
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=20)[0] == said and process.returncode == STOPPED


def test_usr1_leaves_a_forked_data_worker_alone():
    process, first = start("worker")
    lines = {first, process.stdout.readline().strip()}
    worker = int((lines - {"ready"}).pop())
    os.kill(worker, signal.SIGUSR1)
    assert process.stdout.readline() == "worker lives\n"
    process.kill()
    process.wait()


def test_a_requeued_start_waits_for_what_the_lost_one_left(tmp_path, monkeypatch):
    assert restart_patience() == 0
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert restart_patience() > 600  # NCCL's watchdog
    hold = "import sys, time; from nemo_amalia.training.job.run_lock import claim; claim(sys.argv[1]); "
    orphan = subprocess.Popen(
        [sys.executable, "-c", hold + "print(1, flush=True); time.sleep(2.5)", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    orphan.stdout.readline()
    said = []
    begin = time.monotonic()
    claim(tmp_path, keep=False, patience=30, say=said.append)
    assert 1 < time.monotonic() - begin < 20
    assert len(said) == 1 and said[0].startswith(f"[job] waits up to 30 s for process {orphan.pid} on ")
    orphan.wait()
