"""Run a test's function in several ranks on this machine: a timeout, free ports, every rank's stack if it hangs.

``launch(worker, nproc=2, arguments={...})`` calls the top-level function ``worker(**arguments)`` in each rank and
returns the results in rank order. Ranks see RANK, WORLD_SIZE, MASTER_ADDR and a free MASTER_PORT, so
``torch.distributed.init_process_group("gloo")`` works. They are forked from one server process that has imported
Megatron already (tests/helpers/preload.py): that import takes 16 s, which no test should pay for again.
"""

import faulthandler
import importlib.util
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ports import free_ports

HELPERS = Path(__file__).resolve().parent
ROOT = HELPERS.parents[1]
RANK_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",
}


def _server() -> multiprocessing.context.BaseContext:
    """The context whose server has Megatron loaded; the first call starts it when the first rank starts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preload"])
    here = [str(folder) for folder in (ROOT, HELPERS, HELPERS / "data", HELPERS / "data_prep")]
    os.environ.update(RANK_ENVIRONMENT)
    os.environ["PYTHONPATH"] = os.pathsep.join(here + [p for p in [os.environ.get("PYTHONPATH")] if p])
    return context


def launch(worker: Callable, nproc: int, arguments: dict | None = None, timeout: float = 180) -> list[Any]:
    """Run ``worker(**arguments)`` in ``nproc`` ranks; return their results in rank order.

    Raises RuntimeError with the tail of the failing rank's output, or with every rank's stacks after ``timeout`` s.
    """
    context, [port] = _server(), free_ports(1)
    with tempfile.TemporaryDirectory(prefix="launch_") as folder:
        here, ranks = Path(folder), []
        for rank in range(nproc):
            environment = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(nproc),
                "LOCAL_WORLD_SIZE": str(nproc),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            file = sys.modules[worker.__module__].__file__
            job = (file, worker.__name__, arguments or {}, environment, str(here / str(rank)))
            ranks.append(context.Process(target=_rank_main, args=job))
        for process in ranks:
            process.start()
        try:
            _wait(ranks, [here / f"{rank}.log" for rank in range(nproc)], timeout)
        finally:
            for process in ranks:
                _kill_group(process.pid)  # a rank that has ended may leave checkpoint writers and data workers behind
                process.join()
        return [pickle.loads((here / f"{rank}.result").read_bytes()) for rank in range(nproc)]


def _rank_main(file: str, function: str, arguments: dict, environment: dict, prefix: str) -> None:
    """The body of one rank: its own session, its output in ``prefix.log``, its result in ``prefix.result``."""
    os.setsid()
    with open(f"{prefix}.log", "wb", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.enable(file=2)
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
    os.environ.update(environment)
    spec = importlib.util.spec_from_file_location("launched_test", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["launched_test"] = module
    spec.loader.exec_module(module)
    result = getattr(module, function)(**arguments)
    Path(f"{prefix}.result").write_bytes(pickle.dumps(result))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Gloo's and the data loader's threads have nothing left to do, and may block a normal exit


def _wait(ranks: list, logs: list[Path], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while any(process.is_alive() for process in ranks):
        for rank, process in enumerate(ranks):
            if process.exitcode:
                raise RuntimeError(f"rank {rank} exited with {process.exitcode}:\n{_tail(logs[rank])}")
        if time.monotonic() > deadline:
            for process in ranks:
                if process.is_alive():
                    os.kill(process.pid, signal.SIGUSR1)  # faulthandler prints every thread's stack
            time.sleep(2)
            stacks = "\n".join(f"--- rank {rank}\n{_tail(log)}" for rank, log in enumerate(logs))
            raise RuntimeError(f"no end after {timeout} s; the ranks' stacks:\n{stacks}")
        time.sleep(0.02)
    for rank, process in enumerate(ranks):
        if process.exitcode:
            raise RuntimeError(f"rank {rank} exited with {process.exitcode}:\n{_tail(logs[rank])}")


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it had not reached setsid yet, or is gone
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _tail(log: Path, lines: int = 80) -> str:
    if not log.exists():
        return "(no output)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
