"""Run a test's function in ranks that torchrun starts, on GPUs with NCCL, or on the CPU platform with Gloo.

``start("file.py", "function", ranks, arguments)`` gives the results in rank order; arguments and results are JSON.
tests/helpers/launcher.py cannot serve: it forks ranks from a process that is on the CPU platform.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES")  # before tests/helpers/launcher.py hides the GPUs from this process
CPU_ONLY = {"CUDA_VISIBLE_DEVICES": "", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
# What Megatron's deterministic_mode asks for (bridge/training/config.py, core/extensions/transformer_engine.py), and
# cuBLAS (torch.use_deterministic_algorithms).
DETERMINISTIC = {
    "NCCL_ALGO": "Ring",
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


def command(ranks: int, file: str, function: str, folder: Path) -> list[str]:
    """torchrun for ``ranks`` processes of gpu_rank.py."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return [*start, str(HERE / "gpu_rank.py"), str(HERE / file), function, str(folder)]


def environment(on: str, deterministic: bool = False) -> dict[str, str]:
    """Of a rank. on: ``gpu`` or ``cpu``."""
    values = {name: value for name, value in os.environ.items() if name not in CPU_ONLY}
    if on == "cpu":
        values |= CPU_ONLY
    elif VISIBLE is not None:
        values["CUDA_VISIBLE_DEVICES"] = VISIBLE
    paths = [str(ROOT), str(ROOT / "tests" / "helpers"), str(HERE), os.environ.get("PYTHONPATH", "")]
    values |= {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "TOKENIZERS_PARALLELISM": "false"}
    values |= {"HF_HUB_OFFLINE": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    return values | DETERMINISTIC if deterministic else values


def start(
    file: str, function: str, ranks: int, arguments: dict, *, on: str | None = None, timeout: float = 580,
    deterministic: bool = False,
) -> list[Any]:  # fmt: skip
    """Results of every rank. on: ``gpu``, ``cpu``, or None: where these tests run.

    Raises RuntimeError with the end of the output when a rank fails, or when ``timeout`` seconds have passed.
    """
    from gpu_machine import REHEARSAL

    on = on or ("cpu" if REHEARSAL else "gpu")
    with tempfile.TemporaryDirectory(prefix="gpu_ranks_") as folder:
        here = Path(folder)
        (here / "arguments.json").write_text(json.dumps(arguments))
        with open(here / "log", "wb") as log:
            job = subprocess.Popen(
                command(ranks, file, function, here), env=environment(on, deterministic), cwd=ROOT, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                code = job.wait(timeout)
            except subprocess.TimeoutExpired:
                code = f"no end after {timeout} s"
            finally:
                _end(job)
        if code:
            raise RuntimeError(f"{function} on {ranks} ranks ({on}): {code}\n{_tail(here / 'log')}")
        return [json.loads((here / f"{rank}.json").read_text()) for rank in range(ranks)]


def _end(job: subprocess.Popen) -> None:
    """torchrun first, which ends its ranks (each leads a session of its own), then whatever is left of its group."""
    if job.poll() is None:
        job.send_signal(signal.SIGTERM)
        try:
            job.wait(30)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(job.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    job.wait()


def _tail(log: Path, lines: int = 120) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
