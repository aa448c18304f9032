"""`amalia train` as a user types it: torchrun, two ranks, hydra_runner, Energon; then a bad sample in the same data."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launcher import launch

from nemo_amalia.training.job.console import LOADING


def prepare_inputs(folder):
    from pathlib import Path

    import tiny_hf
    from tiny_shards import conversations

    from nemo_amalia.bridge.import_hf import import_checkpoint
    from nemo_amalia.data.shards.write import write_shards

    here = Path(folder)
    import_checkpoint(hf=tiny_hf.llava_next(here / "source"), vision=None, llm=None, out=here / "checkpoint")
    write_shards(conversations(40), here / "data", samples_per_shard=20)
    good = list(conversations(20))
    bad = dict(good[7], key="sem-imagem", images=[])
    write_shards([*good, {**bad, "messages": good[0]["messages"]}], here / "bad", samples_per_shard=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("command")
    launch(prepare_inputs, 1, {"folder": str(place)})
    return place


def command_of(folder, data, name, steps):
    command = [sys.executable, "-m", "nemo_amalia.cli", "train", "stage=sft_demo", "parallel=tp2", "precision=fp32"]
    command += [f"model.checkpoint={folder}/checkpoint", f"data.path={folder}/{data}", f"run_dir={folder}/{name}"]
    command += ["stage.seq_length=256", "stage.global_batch_size=2", f"stage.train_steps={steps}", "data.num_workers=1"]
    return command + ["launch.ranks=2", "logging.interval=1", "data.packing_buffer_size=8"]


def train(folder, data, name, steps):
    return subprocess.run(command_of(folder, data, name, steps), capture_output=True, text=True, timeout=400)


def test_two_ranks_train_and_say_so(folder):
    done = train(folder, "data", "good", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "[sft] started; 2 steps" and len(lines) == 3
    assert lines[2].startswith("[sft] step     2/2  loss ")
    assert done.stderr.splitlines() == [LOADING]  # once, of the launcher, for two ranks
    metrics = [json.loads(line) for line in (folder / "good" / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == [1, 2] and all(0 < m["pack_fill"] <= 1 for m in metrics)
    assert list((folder / "good" / "tensorboard").glob("events.*"))
    assert (folder / "good" / "checkpoints" / "hf" / "tokenizer.json").is_file()
    another_run_is_refused_before_a_rank_starts(folder)


def another_run_is_refused_before_a_rank_starts(folder):
    """By the configuration that the run kept; without it, by what Bridge saved of the schedule."""
    longer = train(folder, "data", "good", 9)
    assert longer.returncode == 2 and LOADING not in longer.stderr
    assert "goes on after step 2 of a run with stage.train_steps=2 (now 9): give those" in longer.stderr
    more = ["stage.trainable=[connector,decoder]", "optim.adam_beta2=0.9", "--check"]
    check = [*command_of(folder, "data", "good", 2), *more]
    for kept in (True, False):
        done = subprocess.run(check, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and "stage.trainable=[tower,connector,decoder] (now [connector," in done.stderr
        assert ("optim.adam_beta2=0.95 (now 0.9)" in done.stderr) == kept
        (folder / "good" / "run_config.json").unlink(missing_ok=True)


@pytest.mark.slow
def test_a_bad_sample_stops_both_ranks_with_one_line(folder):
    done = train(folder, "bad", "bad_run", 50)
    errors = [line for line in done.stdout.splitlines() if line.startswith("error:")]
    assert done.returncode != 0 and len(errors) == 1
    assert "sem-imagem" in errors[0]


@pytest.mark.slow
def test_kill_9_of_the_command_ends_its_ranks_and_meanwhile_nobody_else_writes(folder):
    command = command_of(folder, "data", "killed", 400) + ["checkpoint.save_interval=2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    metrics = folder / "killed" / "metrics.jsonl"
    until(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) > 3, 300)
    second = train(folder, "data", "killed", 400)
    assert second.returncode != 0 and "is being written by process" in second.stdout + second.stderr
    process.kill()
    process.wait()
    until(lambda: not ranks_of(folder / "killed"), 90)
    done = len(metrics.read_text().splitlines())
    third = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert third.stdout.readline().startswith("[sft] resumed after step ")
    until(lambda: len(metrics.read_text().splitlines()) > done + 1, 300)
    third.terminate()
    third.communicate(timeout=100)
    until(lambda: not ranks_of(folder / "killed"), 90)


def until(holds, seconds):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def ranks_of(run_dir):
    """Pids of processes that were started with this run_dir."""
    return [p for p in Path("/proc").glob("[0-9]*") if f"run_dir={run_dir}" in command_line(p)]


def command_line(process):
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""
