"""Training from an index of packs: killed at one rank, resumed at two, the losses go on as if nothing had happened.

Other ranks sum in another order, so the tolerance is that of tests/parity/test_layouts.py, 1e-5; the tokens of each
step are compared exactly, and differ from step to step, so that a wrong position would show.
"""

import json

import pytest
from launcher import launch

EPOCHS, SAVE_EVERY, KILL_AFTER = 2.0, 2, 3


def prepare_inputs(folder):
    from pathlib import Path

    import tiny_hf
    from streams import make_index
    from tiny_shards import SEQ_LENGTH, conversations

    from nemo_amalia.bridge.import_hf import import_checkpoint
    from nemo_amalia.data.shards.metadataset import write_epochized
    from nemo_amalia.data.shards.write import write_shards

    here = Path(folder)
    import_checkpoint(hf=tiny_hf.llava_next(here / "source"), vision=None, llm=None, out=here / "checkpoint")
    write_shards(conversations(26), here / "data", samples_per_shard=10)
    write_shards(conversations(9), here / "more", samples_per_shard=4)
    write_epochized([(here / "data", 0.5), (here / "more", 2)], here / "mix.yaml")
    return {
        name: make_index(here / name, here / "checkpoint" / "hf", here / f"{name}.packs", seq_length=SEQ_LENGTH)[
            "totals"
        ]
        for name in ("data", "mix.yaml")
    }


def train_index(folder, name, workers, kill_after=None, data="data", quarantine=None):
    """One run over an index; (step, loss, tokens) of each step, and what was said first."""
    import json
    import os
    import signal
    from pathlib import Path

    import torch.distributed as dist
    from megatron.bridge.training.callbacks import Callback
    from megatron.bridge.training.finetune import finetune
    from tiny_shards import SEQ_LENGTH
    from training_runs import run_config

    from nemo_amalia.training.job.console import CONSOLE_VARIABLE, Console
    from nemo_amalia.training.run import prepare_run

    class KillHere(Callback):
        def on_train_step_end(self, context):
            if context.state.train_state.step + 1 == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

    dist.init_process_group("gloo")
    run = run_config(f"{folder}/checkpoint", f"{folder}/{name}", steps=1, batch=2)
    run.data.path, run.data.pack_index, run.data.num_workers = f"{folder}/{data}", f"{folder}/{data}.packs", workers
    run.data.quarantine = quarantine
    run.stage.seq_length, run.stage.epochs = SEQ_LENGTH, EPOCHS
    run.checkpoint.save_interval = SAVE_EVERY
    Path(run.run_dir).mkdir(parents=True, exist_ok=True)
    os.environ[CONSOLE_VARIABLE] = f"{run.run_dir}/console"
    container, step, callbacks = prepare_run(run, Console(run.run_dir, dist.get_rank()), "gloo")
    finetune(container, step, callbacks=[*callbacks, KillHere()] if kill_after else callbacks)
    dist.barrier()
    lines = Path(run.run_dir, "metrics.jsonl").read_text().splitlines()
    said = Path(run.run_dir, "console").read_text().splitlines()[0]
    return [(r["step"], r["loss"], r["tokens"]) for r in map(json.loads, lines)], said


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("index"))
    return folder, launch(prepare_inputs, 1, {"folder": folder})[0]


@pytest.mark.slow
def test_an_epoch_is_exact_and_a_run_resumes_at_another_data_parallel_size(inputs):
    folder, totals = inputs[0], inputs[1]["data"]
    steps = -(-2 * totals["packs"] // 2)
    whole, said = launch(train_index, 1, {"folder": folder, "name": "whole", "workers": 0}, timeout=300)[0]
    assert said.startswith(f"[data] 2 epochs of {totals['packs']} packs") and f" are {steps} steps of 2 packs" in said
    assert len(whole) == steps and sum(tokens for *_, tokens in whole) == 2 * totals["tokens"]
    assert len({tokens for *_, tokens in whole}) > 1
    killed = {"folder": folder, "name": "killed", "workers": 1}
    with pytest.raises(RuntimeError, match="exited with -9"):
        launch(train_index, 1, {**killed, "kill_after": KILL_AFTER}, timeout=300)
    resumed, _ = launch(train_index, 2, killed, timeout=300)[-1]
    assert [(step, tokens) for step, _, tokens in resumed] == [(step, tokens) for step, _, tokens in whole]
    for (_, got, _), (_, want, _) in zip(resumed, whole, strict=True):
        assert got == pytest.approx(want, rel=1e-5)


@pytest.mark.slow
def test_an_epoch_of_a_mix_is_exact_and_a_quarantined_sample_is_left_out(inputs, tmp_path):
    folder, totals = inputs[0], inputs[1]["mix.yaml"]
    assert totals["samples"] == 13 + 18
    mix = {"folder": folder, "workers": 1, "data": "mix.yaml"}
    whole, said = launch(train_index, 2, {**mix, "name": "mix"}, timeout=300)[0]
    assert said.startswith(f"[data] 2 epochs of {totals['packs']} packs")
    assert sum(tokens for *_, tokens in whole) == 2 * totals["tokens"]  # two packs a step: the last step is full
    listed = tmp_path / "list.jsonl"
    line = {
        "folder": f"{folder}/more",
        "index": "",
        "shard": "shard-000000.tar",
        "key": "ruido-00001",
        "reason": "image",
    }
    listed.write_text(json.dumps(line) + "\n")
    less, _ = launch(train_index, 2, {**mix, "name": "less", "quarantine": str(listed)}, timeout=300)[0]
    missing = [before - after for (*_, before), (*_, after) in zip(whole, less, strict=True)]
    assert min(missing) == 0 < sum(missing) and sum(missing) % 4 == 0  # two repetitions in each of two epochs
