"""Kill -9 in the middle of a run, start it again: the losses go on, bit for bit, as if nothing had happened.

No tolerance: the same sums in the same order on the same machine. What is restored is weights, optimizer, schedule,
random state and the position in the data (Energon's, with a worker process that has read ahead).
"""

import pytest
from launcher import launch
from tiny_megatron import Layout

STEPS, SAVE_EVERY, KILL_AFTER = 8, 3, 5


def prepare_inputs(folder):
    from pathlib import Path

    import tiny_hf
    from tiny_shards import conversations

    from nemo_amalia.bridge.import_hf import import_checkpoint
    from nemo_amalia.data.shards.write import write_shards

    here = Path(folder)
    import_checkpoint(hf=tiny_hf.llava_next(here / "source"), vision=None, llm=None, out=here / "checkpoint")
    write_shards(conversations(80), here / "data", samples_per_shard=20)


def train_stream(folder, name, layout, kill_after=None, asynchronous=False):
    """One run over the shards; its metrics as written."""
    import json
    import os
    import signal
    from pathlib import Path

    import torch.distributed as dist
    from megatron.bridge.training.callbacks import Callback
    from megatron.bridge.training.finetune import finetune
    from tiny_shards import SEQ_LENGTH
    from training_runs import run_config

    from nemo_amalia.training.job.console import Console
    from nemo_amalia.training.run import prepare_run

    class KillHere(Callback):
        def on_train_step_end(self, context):
            if context.state.train_state.step + 1 == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

    dist.init_process_group("gloo")
    run = run_config(f"{folder}/checkpoint", f"{folder}/{name}", layout=layout, steps=STEPS, batch=2)
    run.data.path, run.data.num_workers, run.data.packing_buffer_size = f"{folder}/data", 1, 8
    run.stage.seq_length = SEQ_LENGTH
    run.checkpoint.save_interval, run.checkpoint.keep_last = SAVE_EVERY, 1
    run.checkpoint.asynchronous = asynchronous
    Path(run.run_dir).mkdir(parents=True, exist_ok=True)
    container, step, callbacks = prepare_run(run, Console(run.run_dir, dist.get_rank()), "gloo")
    finetune(container, step, callbacks=[*callbacks, KillHere()] if kill_after else callbacks)
    dist.barrier()
    lines = Path(run.run_dir, "metrics.jsonl").read_text().splitlines()
    kept = sorted(path.name for path in Path(run.run_dir, "checkpoints").glob("iter_*"))
    return [(r["step"], r["loss"], r["grad_norm"], r["tokens"]) for r in map(json.loads, lines)], kept


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("resume"))
    launch(prepare_inputs, 1, {"folder": folder})
    return folder


@pytest.fixture(scope="module")
def never_killed(inputs):
    layout = Layout(tp=2, sp=True)
    return launch(train_stream, 2, {"folder": inputs, "name": "whole", "layout": layout}, timeout=300)[-1]


def test_kill_and_start_again(inputs, never_killed):
    arguments = {"folder": inputs, "name": "killed", "layout": Layout(tp=2, sp=True)}
    with pytest.raises(RuntimeError, match="exited with -9"):
        launch(train_stream, 2, {**arguments, "kill_after": KILL_AFTER}, timeout=300)
    metrics, kept = launch(train_stream, 2, arguments, timeout=300)[-1]
    assert [step for step, *_ in metrics] == list(range(1, STEPS + 1))
    assert metrics == never_killed[0]
    assert len({tokens for *_, tokens in metrics}) > 1  # the packs differ, so a wrong position would show
    assert kept == [f"iter_{STEPS:07d}"]  # keep_last = 1


@pytest.mark.slow
def test_kill_and_start_again_with_asynchronous_checkpoints(inputs, never_killed):
    """A save is written beside training; the one that the kill tears must not count."""
    arguments = {"folder": inputs, "name": "asynchronous", "layout": Layout(tp=2, sp=True), "asynchronous": True}
    with pytest.raises(RuntimeError, match="exited with -9"):
        launch(train_stream, 2, {**arguments, "kill_after": KILL_AFTER}, timeout=300)
    metrics, kept = launch(train_stream, 2, arguments, timeout=300)[-1]
    assert metrics == never_killed[0]
    assert kept == [f"iter_{STEPS:07d}"]


def test_a_checkpoint_of_tp2_pp2_resumes_at_tp1(inputs, never_killed):
    """Written at step 3 by four ranks; one rank goes on. Other sums, so 1e-5 (see tests/parity/test_layouts.py)."""
    four = {"folder": inputs, "name": "four", "layout": Layout(tp=2, pp=2, sp=True), "kill_after": KILL_AFTER}
    with pytest.raises(RuntimeError, match="exited with -9"):
        launch(train_stream, 4, four, timeout=400)
    metrics, _ = launch(train_stream, 1, {"folder": inputs, "name": "four", "layout": Layout()}, timeout=300)[0]
    assert [step for step, *_ in metrics] == list(range(1, STEPS + 1))
    for got, want in zip(metrics, never_killed[0], strict=True):
        assert got == pytest.approx(want, rel=1e-5)
