"""Kill -9 in the middle of a run on GPUs, start it again: bit for bit the losses of the run that nobody killed.

tests/integration/test_resume.py with Megatron's deterministic mode: flash attention's backward, NCCL's rings and
cuBLAS would otherwise add up in another order each time. bf16, images decoded on the GPU, a data worker that reads
ahead.
"""

import pytest
from gpu_ranks import start

STEPS, SAVE_EVERY, KILL_AFTER = 8, 3, 5
LAYOUTS = [
    pytest.param({}, 1, id="one GPU", marks=pytest.mark.gpu),
    pytest.param({"tp": 2, "sp": True}, 2, id="TP2+SP", marks=pytest.mark.gpu(gpus=2)),
]


def write_data(folder: str) -> str:
    """Shards of small images and questions; needs no GPU."""
    from pathlib import Path

    from tiny_shards import conversations

    from nemo_amalia.data.shards.write import write_shards

    write_shards(conversations(80), Path(folder), samples_per_shard=20)
    return folder


def stream(checkpoint, data, folder, layout, kill_after=None) -> list:
    """One run; (step, loss, gradient norm, tokens) of each step as written."""
    import json
    import os
    import signal
    from pathlib import Path

    import torch
    import torch.distributed as dist
    from gpu_model import run_of
    from megatron.bridge.training.callbacks import Callback
    from megatron.bridge.training.finetune import finetune

    from nemo_amalia.training.job.console import Console
    from nemo_amalia.training.run import prepare_run

    class KillHere(Callback):
        def on_train_step_end(self, context):
            if context.state.train_state.step + 1 == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

    run = run_of(checkpoint, folder, layout=layout, steps=STEPS)
    run.stage.global_batch_size = 2
    run.data.path, run.data.num_workers, run.data.packing_buffer_size = data, 1, 8
    run.checkpoint.save_interval, run.checkpoint.keep_last = SAVE_EVERY, 1
    Path(run.run_dir).mkdir(parents=True, exist_ok=True)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    container, step, callbacks = prepare_run(run, Console(run.run_dir, dist.get_rank()), backend)
    container.model.deterministic_mode = True
    finetune(container, step, callbacks=[*callbacks, KillHere()] if kill_after else callbacks)
    dist.barrier()
    lines = Path(run.run_dir, "metrics.jsonl").read_text().splitlines()
    return [[r["step"], r["loss"], r["grad_norm"], r["tokens"]] for r in map(json.loads, lines)]


@pytest.mark.parametrize(("layout", "ranks"), LAYOUTS)
def test_kill_and_start_again(layout, ranks, checkpoint, tmp_path):
    arguments = {"checkpoint": checkpoint, "data": write_data(str(tmp_path / "data")), "layout": layout}

    def launch(name, **more):
        values = {**arguments, "folder": str(tmp_path / name), **more}
        return start("test_gpu_resume.py", "stream", ranks, values, deterministic=True)[-1]

    whole = launch("whole")
    with pytest.raises(RuntimeError, match=r"exitcode\s*: -9"):
        launch("killed", kill_after=KILL_AFTER)
    again = launch("killed")
    assert [step for step, *_ in again] == list(range(1, STEPS + 1))
    assert again == whole
    assert len({tokens for *_, tokens in whole}) > 1
