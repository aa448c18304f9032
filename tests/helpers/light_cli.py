"""The command line in a process of its own that must not import anything heavy: for what is refused at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "megatron")
PROGRAM = f"""
import json, sys
from nemo_amalia import cli
codes = [cli.main(words) for words in json.loads(sys.argv[1])]
print(json.dumps([codes, [name for name in {HEAVY} if name in sys.modules]]))
"""


def run_light(*commands: list[str], folder: Path | None = None) -> list[str]:
    """What each command writes to stderr, a line each; they are refused (exit code 2), with none of HEAVY imported."""
    words = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=env, cwd=folder or ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codes, heavy = json.loads(done.stdout)
    assert codes == [2] * len(commands), done.stderr
    assert not heavy, f"{heavy} imported before the refusals"
    return done.stderr.splitlines()
