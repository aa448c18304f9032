"""``amalia train`` on one machine: check first, then torchrun, and show what its ranks say. Imports no Megatron."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from nemo_amalia.bridge.checkpoints import assets_of, latest_iteration
from nemo_amalia.bridge.saved_sizes import read_sizes
from nemo_amalia.config.schema import PREFERENCE_STAGE, RunConfig
from nemo_amalia.config.validation.model import check_model_layout
from nemo_amalia.config.validation.run import model_ranks, validate
from nemo_amalia.data.shards.check import check_folder
from nemo_amalia.training.job.console import CONSOLE_VARIABLE, announce_loading
from nemo_amalia.training.job.environment import restart_patience
from nemo_amalia.training.job.run_lock import claim
from nemo_amalia.training.preflight.position import check_position, resumed_step
from nemo_amalia.training.preflight.resume import check_resume
from nemo_amalia.training.preflight.steps import settle_steps
from nemo_amalia.utils.devices import gpu_count
from nemo_amalia.utils.errors import INTERRUPTED
from nemo_amalia.utils.process import end_with_parent


def launch(run: RunConfig, overrides: list[str], checks: Sequence[Callable[[RunConfig, int], None]] = ()) -> int:
    """Validate, start the ranks under torchrun and wait; returns their exit code. Raises ConfigError first.

    checks: what else must hold of the run and its number of ranks, as that the cards have the memory; each raises
    ValueError. The caller gives them, since what knows memory (cluster/) imports this room.
    """
    ranks = default_ranks(run)
    check(run, ranks, overrides, checks)
    return start_ranks(run, ranks, "nemo_amalia.training.main", overrides)


def check(
    run: RunConfig,
    ranks: int,
    overrides: Sequence[str] = (),
    checks: Sequence[Callable[[RunConfig, int], None]] = (),
) -> str:
    """Everything that can be refused before a rank starts; the line that says what would run. Raises ConfigError."""
    validate(run, ranks)
    check_places(run)
    for further in checks:
        further(run, ranks)
    settle_steps(run)
    check_resume(run)
    check_position(run, ranks)
    _check_reference(run, overrides)
    claim(run.run_dir, keep=False, patience=restart_patience(), say=partial(print, flush=True))
    step = resumed_step(run)
    begin = f"goes on after step {step}" if step else f"starts from {run.model.checkpoint}"
    return f"[{run.stage.name}] checked: {ranks} ranks, {run.stage.train_steps} steps, {begin}"


def check_inputs(run: RunConfig, overrides: Sequence[str] = ()) -> None:
    """What one process reads for all: raises ConfigError for torn checkpoints, data or reference that do not fit."""
    check_places(run)
    _check_reference(run, overrides)


def _check_reference(run: RunConfig, overrides: Sequence[str]) -> None:
    if run.stage.name == PREFERENCE_STAGE:
        from nemo_amalia.training.reference.fingerprint import check_reference  # it loads torch

        check_reference(run, overrides)


def default_ranks(run: RunConfig) -> int:
    """As many as launch.ranks says; else one a GPU, or what one copy of the model needs."""
    return run.launch.ranks or gpu_count() or model_ranks(run)


def start_ranks(run: RunConfig, ranks: int, module: str, overrides: list[str]) -> int:
    """``module`` in each rank under torchrun, their lines on this terminal; returns the exit code."""
    threads = run.launch.threads or max(1, (os.cpu_count() or 1) // ranks)
    logs = Path(run.run_dir) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    console = logs / "console.log"
    console.write_text("")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += ["-m", module, *overrides]
    environment = os.environ | {
        CONSOLE_VARIABLE: str(console.absolute()),
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
    }
    # torch.compile would ask for the CUDA driver in every rank; there is none to ask where there is no GPU.
    if not gpu_count():
        environment["TORCHDYNAMO_DISABLE"] = "1"
    announce_loading()
    with open(logs / "torchrun.log", "ab") as log:
        # SIGTERM: torchrun passes it on, and the ranks save a checkpoint.
        stop = partial(end_with_parent, signal.SIGTERM)
        job = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, preexec_fn=stop)
        return _follow(job, console, logs)


def check_places(run: RunConfig) -> None:
    """Raise a UserError for data that is not prepared, a torn checkpoint, or a layout that its model does not fit."""
    check_folder(run.data.path)
    # Without a GPU the FP8 of a job elsewhere is not judged here: `amalia plan` does, and its ranks.
    engine = bool(gpu_count()) and find_spec("transformer_engine") is not None
    check_model_layout(run, read_sizes(run.model.checkpoint), engine)
    assets_of(run.model.checkpoint)
    own = Path(run.run_dir) / "checkpoints"
    if (own / "latest_checkpointed_iteration.txt").is_file():
        latest_iteration(own)


def _follow(job: subprocess.Popen, console: Path, logs: Path) -> int:
    """Print the console file as it grows; identical error lines of several ranks once."""
    errors: set[str] = set()
    with open(console) as lines:
        try:
            while True:
                ended = job.poll() is not None
                for line in lines:
                    if line.startswith("error: ") and line in errors:
                        continue
                    errors.add(line) if line.startswith("error: ") else None
                    print(line, end="", flush=True)
                if ended:
                    break
                time.sleep(0.1)
        except KeyboardInterrupt:
            job.terminate()
            job.wait()
            return INTERRUPTED
    if job.returncode and not errors:
        print(f"error: the ranks ended with code {job.returncode}; see {logs}/rank_*.log and torchrun.log", flush=True)
    return job.returncode
