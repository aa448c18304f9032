"""Start `amalia-data` in a process of its own, as a user would."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(words: list[str], log: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'helpers'}"}
    with open(log, "ab") as file:
        return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)


def finish(words: list[str], log: Path) -> str:
    process = start(words, log)
    assert process.wait(240) == 0, log.read_text()[-3000:]
    return log.read_text()
