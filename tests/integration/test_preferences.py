"""Stage 3 by its commands, on shards: the reference written in parts, training with it, resuming bit for bit."""

import json
import math
import shlex
import subprocess
import sys

import pytest
from launcher import launch
from tiny_megatron import Layout

from nemo_amalia.training.reference.file import parts_folder, read_table

PAIRS, SHARDS, STEPS, SAVE_EVERY, KILL_AFTER = 48, 4, 6, 2, 5
COMMON = ["parallel=tp2", "precision=fp32", "launch.ranks=2", "stage.seq_length=512", "data.num_workers=1"]


def prepare_inputs(folder):
    from pathlib import Path

    import tiny_hf
    from tiny_shards import preferences

    from nemo_amalia.bridge.import_hf import import_checkpoint
    from nemo_amalia.data.shards.write import write_shards

    here = Path(folder)
    import_checkpoint(hf=tiny_hf.llava_next(here / "source"), vision=None, llm=None, out=here / "checkpoint")
    write_shards(preferences(PAIRS), here / "pairs", samples_per_shard=PAIRS // SHARDS)


def import_other(folder):
    from pathlib import Path

    import tiny_hf

    from nemo_amalia.bridge.import_hf import import_checkpoint

    here = Path(folder)
    source = tiny_hf.llava_next(here / "other_source", seed=5)
    import_checkpoint(hf=source, vision=None, llm=None, out=here / "other_checkpoint")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("preferences")
    launch(prepare_inputs, 1, {"folder": str(place)})
    return place


def amalia(*words):
    command = [sys.executable, "-m", "nemo_amalia.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


def train(folder, name, *words, checkpoint=None):
    named = [f"model.checkpoint={checkpoint or folder / 'checkpoint'}", f"data.path={folder / 'pairs'}"]
    named += [f"run_dir={folder / name}", "stage.global_batch_size=2", "data.packing_buffer_size=16"]
    return amalia("train", "stage=dpo", *named, *COMMON, f"stage.train_steps={STEPS}", *words)


def refer(folder, job=None):
    """A rank of `amalia reference`, alone or as one of an array's two jobs; what it said."""
    import os
    from pathlib import Path

    import torch.distributed as dist
    from training_runs import dpo_config

    from nemo_amalia.training.job.console import Console
    from nemo_amalia.training.reference.run import make_reference

    if job is not None:
        os.environ |= {"SLURM_ARRAY_TASK_ID": f"{job + 3}", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_COUNT": "2"}
    run = dpo_config(f"{folder}/checkpoint", f"{folder}/reference-{job}", layout=Layout(tp=2, sp=True), batch=1,
                     reference="precomputed")  # fmt: skip
    run.data.path, run.stage.seq_length = f"{folder}/pairs", 512
    run.stage.reference_file = f"{folder}/pairs.reference.parquet"
    os.environ["AMALIA_CONSOLE"] = f"{folder}/said-{job}-{os.environ['RANK']}"
    make_reference(run, Console(run.run_dir, int(os.environ["RANK"])), "gloo")
    dist.destroy_process_group()
    return Path(os.environ["AMALIA_CONSOLE"]).read_text()


@pytest.fixture(scope="module")
def reference(folder):
    """The file, made by one job of an array of two and then by a job alone; and what training said in between."""
    out = folder / "pairs.reference.parquet"
    launch(refer, 2, {"folder": str(folder), "job": 0})
    parts = {path.name: path.read_bytes() for path in parts_folder(out).glob("*.parquet")}
    before = train(folder, "early")
    torn = sorted(parts)[0]
    (parts_folder(out) / torn).write_bytes(parts[torn][:100])
    return out, parts, before, launch(refer, 2, {"folder": str(folder)})[0]


def test_a_reference_in_parts_is_named_and_completed(reference):
    out, parts, before, said = reference
    assert len(parts) == SHARDS // 2
    assert before.returncode == 2
    assert (
        f"is not complete: {out}.parts has {SHARDS // 2} parts of it; complete it with `amalia refer" in before.stderr
    )
    assert f"[reference] {PAIRS} pairs in {out}" in said
    table, _ = read_table(out, "")
    assert sorted(table["key"].to_pylist())[0].endswith("par-00000") and len(table) == PAIRS
    assert not parts_folder(out).exists()


def test_a_reference_of_another_start_or_of_other_data_is_refused_before_a_rank_starts(folder, reference):
    launch(import_other, 1, {"folder": str(folder)})
    other = train(folder, "other", checkpoint=folder / "other_checkpoint")
    assert other.returncode == 2 and "is of another reference: checkpoint was" in other.stderr
    assert f"run `amalia reference --checkpoint {folder / 'other_checkpoint'}" in other.stderr
    half = train(folder, "half", "precision=bf16")
    assert half.returncode == 2 and "is of another reference: precision was 'fp32' and is 'bf16" in half.stderr


@pytest.mark.slow
def test_the_two_commands(folder):
    """`amalia train stage=dpo` names the `amalia reference` to paste, and then trains with what that made."""
    file = folder / "mine.parquet"
    lacks = train(folder, "run", f"stage.reference_file={file}")
    assert lacks.returncode == 2 and f"there is no reference file {file}: make it with `" in lacks.stderr
    made = amalia(*shlex.split(lacks.stderr.split("`")[1])[1:])
    assert made.returncode == 0 and f"{PAIRS} pairs in {file}" in made.stdout, made.stdout + made.stderr
    done = train(folder, "run", "logging.interval=3", f"stage.reference_file={file}")
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    starts_at_log_2(metrics)
    assert f"[dpo] step {STEPS:>5}/{STEPS}  loss 0." in done.stdout and "  margin " in done.stdout


def starts_at_log_2(metrics):
    assert metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics[0]["rewards/margins"] == pytest.approx(0, abs=1e-5) and metrics[-1]["rewards/margins"] != 0
    assert all(step["truncated"] == 0 and step["samples"] > 0 for step in metrics)


def train_stream(folder, name, kill_after=None):
    """One run over the pairs with the file; its metrics as written."""
    import json
    import os
    import signal
    from pathlib import Path

    import torch.distributed as dist
    from megatron.bridge.training.callbacks import Callback
    from megatron.bridge.training.finetune import finetune
    from training_runs import dpo_config

    from nemo_amalia.training.job.console import Console
    from nemo_amalia.training.run import prepare_run

    class KillHere(Callback):
        def on_train_step_end(self, context):
            if context.state.train_state.step + 1 == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    run = dpo_config(f"{folder}/checkpoint", f"{folder}/{name}", layout=Layout(tp=2, sp=True), steps=STEPS, batch=2,
                     reference="precomputed")  # fmt: skip
    run.data.path, run.data.num_workers, run.data.packing_buffer_size = f"{folder}/pairs", 1, 16
    run.stage.seq_length, run.checkpoint.save_interval = 512, SAVE_EVERY
    Path(run.run_dir).mkdir(parents=True, exist_ok=True)
    container, step, callbacks = prepare_run(run, Console(run.run_dir, dist.get_rank()), "gloo")
    finetune(container, step, callbacks=[*callbacks, KillHere()] if kill_after else callbacks)
    dist.barrier()
    lines = Path(run.run_dir, "metrics.jsonl").read_text().splitlines()
    timing = ("seconds", "tokens_per_second", "peak_memory_gb")
    return [{name: value for name, value in json.loads(line).items() if name not in timing} for line in lines]


def test_kill_and_start_again_is_bit_equal(folder, reference):
    whole = launch(train_stream, 2, {"folder": str(folder), "name": "whole"}, timeout=300)[-1]
    starts_at_log_2(whole)
    arguments = {"folder": str(folder), "name": "killed"}
    with pytest.raises(RuntimeError, match="exited with -9"):
        launch(train_stream, 2, {**arguments, "kill_after": KILL_AFTER}, timeout=300)
    resumed = launch(train_stream, 2, arguments, timeout=300)[-1]
    assert [step["step"] for step in resumed] == list(range(1, STEPS + 1))
    assert resumed == whole
    assert len({step["tokens"] for step in whole}) > 1  # the packs differ, so a wrong position would show
