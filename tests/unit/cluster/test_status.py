"""`amalia status`: from the files of a run alone, at once, and right about who is running."""

import json
import subprocess
import sys
import time

import pytest

from nemo_amalia.cluster.status import RECENT, screen, status
from nemo_amalia.training.callbacks.run_state import write_state
from nemo_amalia.utils.errors import UserError

HOLD = """
import sys, time
from nemo_amalia.training.job.run_lock import claim
claim(sys.argv[1])
print('held', flush=True)
"""


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    (folder / "logs").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / "quarantine").mkdir()
    write_state(folder, "sft", 400, 0, 128, "tensor 2 x pipeline 1 x context 1")
    records = [{"step": n, "loss": 400.0 - n, "seconds": 2.0, "tokens": 1000} for n in range(1, 301)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + '{"step": 301, "lo')
    (folder / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("250")
    faults = [{"reason": "image"}, {"reason": "image"}, {"reason": "too_long"}, {"unlisted": 7}]
    (folder / "quarantine" / "0.jsonl").write_text("".join(json.dumps(f) + "\n" for f in faults))
    return folder


def test_step_loss_pace_checkpoint_and_faults(run_dir):
    now = status(run_dir)
    assert now["step"] == 300 and now["total_steps"] == 400 and now["stage"] == "sft"
    assert now["loss"] == 100.0 and now["loss_recent"] == 100.0 + (RECENT - 1) / 2
    assert now["tokens_per_second"] == 500.0 and now["eta_seconds"] == 200.0
    assert now["checkpoint"]["step"] == 250 and 0 <= now["checkpoint"]["age"] < 60
    assert now["data_faults"] == {"image": 2, "too_long": 1, "not listed": 7}
    assert now["job"]["state"] == "not running"
    text = screen(now)
    assert "300 of 400 (75.0%)" in text and "3m20s left" in text and "10 samples: 2 image" in text


def test_who_holds_the_run_dir_is_running_and_is_not_disturbed(run_dir):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD + "time.sleep(60)", str(run_dir)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline().strip() == "held"
        job = status(run_dir)["job"]
        assert job["state"] == "running" and job["where"].startswith(f"process {process.pid} on ")
    finally:
        process.kill()
        process.wait()
    assert status(run_dir)["job"]["state"] == "not running"


def test_a_finished_run_and_the_errors_of_the_last_start_alone(run_dir):
    console = run_dir / "logs" / "console.log"
    console.write_text("[job] job 1, start 1\nerror: old\n[job] job 1, start 2\nerror: first\nerror: of a peer\n")
    (run_dir / "metrics.jsonl").write_text('{"step": 400, "loss": 1.0, "seconds": 1.0, "tokens": 10}\n')
    now = status(run_dir)
    assert now["job"]["state"] == "finished" and now["error"] == "first"


def test_before_the_first_step(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "attempts.txt").write_text("77 0 0 2026-01-01T00:00:00 n[1-2]\n")
    now = status(tmp_path)
    assert now["job"]["id"] == "77" and now["step"] == 0 and "no step yet" in screen(now)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no run_dir"):
        status(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no run_dir"):
        status(tmp_path)


def test_the_command_loads_no_torch(run_dir):
    code = "import sys; from nemo_amalia.cli import main; main(['status', sys.argv[1], '--json']); "
    code += "assert not {'torch', 'numpy'} & set(sys.modules)"
    begin = time.process_time()
    done = subprocess.run([sys.executable, "-c", code, str(run_dir)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 300 and time.process_time() - begin < 5
