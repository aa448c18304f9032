"""The real `transformers serve` on this machine with a tiny LLaVA-NeXT: a server that we did not write."""

import contextlib
import importlib.util
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from ports import free_ports

NEEDED = ("fastapi", "uvicorn", "openai")  # of transformers' extra `serving`, beyond what is pinned
START = "import sys; from transformers.cli.transformers import main; sys.argv = ['transformers', *sys.argv[1:]]; main()"
SECONDS_TO_START = 500  # 8 on a free machine; an import of torch can take minutes on a full one


def missing() -> list[str]:
    """What the server would need and is not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


@contextlib.contextmanager
def serve(model: Path, work: Path):
    """The base URL of a server of `model`, ended with the block. work: a folder for its log and cache."""
    [port] = free_ports(1)
    (work / "hub").mkdir(parents=True, exist_ok=True)  # /v1/models wants the cache folder
    env = {**os.environ, "HF_HUB_CACHE": str(work / "hub"), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", START, "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    with (work / "server.log").open("w") as log:
        process = subprocess.Popen([*command, "--device", "cpu"], env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", work / "server.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen, health: str, log: Path) -> None:
    until = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the server was not ready in {SECONDS_TO_START} s:\n{log.read_text()[-3000:]}")
