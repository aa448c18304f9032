"""run_dir/run_state.json: what the run that writes there wants to do, for those who look from outside. No torch."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from nemo_amalia.utils.files import read_json, write_json

FILE = "run_state.json"


def write_state(run_dir: str | Path, stage: str, total_steps: int, first_step: int, ranks: int, parallel: str) -> None:
    """At the start of training, by one rank. first_step: the step after which this start goes on; 0 for a new run."""
    state = {
        "stage": stage,
        "total_steps": total_steps,
        "first_step": first_step,
        "ranks": ranks,
        "parallel": parallel,
        "started": time.time(),  # seconds since 1970
        "host": socket.gethostname(),
        "job": os.environ.get("SLURM_JOB_ID"),
    }
    write_json(Path(run_dir) / FILE, state)


def read_state(run_dir: str | Path) -> dict[str, Any]:
    """What write_state wrote; empty where no training has started."""
    file = Path(run_dir) / FILE
    return read_json(file) if file.is_file() else {}
