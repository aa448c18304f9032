"""Start `amalia-data` in a process of its own, as a user would."""

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PYTHONPATH = f"{ROOT}{os.pathsep}{HERE}"  # of a process that imports a pipeline of these helpers


def start(words: list[str], log: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    with open(log, "ab") as file:
        return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)


def finish(words: list[str], log: Path) -> str:
    process = start(words, log)
    assert process.wait(240) == 0, log.read_text()[-3000:]
    return log.read_text()
