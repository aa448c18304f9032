"""`amalia status RUN`: where a run stands, from the files in its run_dir and, where there is one, Slurm's queue.

Reads the end of metrics.jsonl and a few small files: no torch, no Megatron, nothing of the run is touched.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

from nemo_amalia.training.callbacks.run_state import read_state
from nemo_amalia.training.job.run_lock import LOCK
from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.text import duration

RECENT = 50  # steps that loss, pace and tokens/s are means of
_TAIL = 256 * 1024  # bytes of a log that are read
_SQUEUE_SECONDS = 10


def status(run_dir: str | Path) -> dict[str, Any]:
    """Everything that the screen shows, with times in seconds. Raises DataError for a folder that is no run's."""
    folder = Path(run_dir)
    if not folder.is_dir():
        raise DataError(f"there is no run_dir {folder}: name the folder that a run was given as run_dir=")
    attempts = _attempts(folder)
    state, records = read_state(folder), _records(folder / "metrics.jsonl")
    if not (state or records or attempts or (folder / LOCK).exists()):
        raise DataError(f"{folder} is no run_dir (no metrics.jsonl, no logs of a job): name the folder of a run")
    total, step = state.get("total_steps"), records[-1]["step"] if records else 0
    return {
        "run_dir": str(folder),
        "stage": state.get("stage"),
        "ranks": state.get("ranks"),
        "parallel": state.get("parallel"),
        "job": _job(folder, state, attempts, step),
        "step": step,
        "total_steps": total,
        **_pace(folder, records, total),
        "checkpoint": _checkpoint(folder),
        "data_faults": _faults(folder),
        "error": _last_error(folder),
        "starts": len(attempts),
    }


def _pace(folder: Path, records: list[dict], total: int | None) -> dict[str, Any]:
    """Means over the last steps; the first after a start is slow, and is left out where there are others."""
    if not records:
        names = ("loss", "loss_recent", "recent_steps", "tokens_per_second", "eta_seconds", "last_step_age")
        return dict.fromkeys(names)
    recent = records[-RECENT:]
    seconds = sorted(record["seconds"] for record in recent)[len(recent) // 2]
    spent = sum(record["seconds"] for record in recent)
    return {
        "loss": records[-1]["loss"],
        "loss_recent": sum(record["loss"] for record in recent) / len(recent),
        "recent_steps": len(recent),
        "tokens_per_second": sum(record["tokens"] for record in recent) / spent if spent else None,
        "eta_seconds": seconds * (total - records[-1]["step"]) if total else None,
        "last_step_age": time.time() - (folder / "metrics.jsonl").stat().st_mtime,
    }


def _tail(file: Path) -> list[str]:
    """Whole lines at the end of a file."""
    if not file.is_file():
        return []
    with open(file, "rb") as data:
        size = data.seek(0, os.SEEK_END)
        data.seek(max(0, size - _TAIL))
        lines = data.read().decode(errors="replace").splitlines()
    return lines[1:] if size > _TAIL else lines


def _records(file: Path) -> list[dict]:
    """The last records of metrics.jsonl; a line that is still being written is left out."""
    records = []
    for line in _tail(file):
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def _attempts(folder: Path) -> list[list[str]]:
    """Lines of slurm/job.sh: job, restart, step at its start, time, nodes."""
    file = folder / "logs" / "attempts.txt"
    return [line.split() for line in file.read_text().splitlines()] if file.is_file() else []


def _job(folder: Path, state: dict, attempts: list[list[str]], step: int) -> dict[str, Any]:
    """id, state and where it runs: Slurm's word where it knows the job, else who holds the run_dir."""
    number = attempts[-1][0] if attempts else state.get("job")
    holder = _holder(folder / LOCK)
    queued = _squeue(number) if number else None
    if queued:
        words, nodes = queued
    elif holder:
        words, nodes = "running", holder
    elif state and step >= state["total_steps"]:
        words, nodes = "finished", None
    else:
        words, nodes = "not running", None
    return {"id": number, "state": words, "where": nodes}


def _squeue(number: str) -> tuple[str, str] | None:
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "-h", "-j", number, "-o", "%T|%r|%N|%L"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SQUEUE_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode or not done.stdout.strip():
        return None
    state, reason, nodes, left = done.stdout.splitlines()[0].split("|")
    running = state == "RUNNING"
    return f"{state.lower()} ({left + ' of its time left' if running else reason})", nodes


def _holder(lock: Path) -> str | None:
    """Who has claimed the run_dir, asked without touching the lock; None for nobody, or where it cannot be seen."""
    if not lock.is_file():
        return None
    with open(lock) as file:
        question = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            kind = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, question))[0]
        except OSError:
            return None
        return None if kind == fcntl.F_UNLCK else file.read().strip() or "another process"


def _checkpoint(folder: Path) -> dict[str, Any] | None:
    tracker = folder / "checkpoints" / "latest_checkpointed_iteration.txt"
    if not tracker.is_file():
        return None
    return {"step": int(tracker.read_text().strip() or 0), "age": time.time() - tracker.stat().st_mtime}


def _faults(folder: Path) -> dict[str, int]:
    """Dropped samples by reason, as run_dir/quarantine lists them."""
    reasons: Counter[str] = Counter()
    for file in sorted((folder / "quarantine").glob("*.jsonl")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            reasons[record.get("reason", "not listed")] += record.get("unlisted", 1)
    return dict(reasons)


def _last_error(folder: Path) -> str | None:
    """The first error of the latest start, as its console has it."""
    found = None
    for line in _tail(folder / "logs" / "console.log"):
        if line.startswith("[job] job "):
            found = None
        elif line.startswith("error: ") and found is None:
            found = line.removeprefix("error: ")
    return found


def screen(now: dict[str, Any]) -> str:
    """The status as lines for a person."""
    job, loss, total = now["job"], now["loss"], now["total_steps"]
    faults, steps = now["data_faults"], now["recent_steps"]
    share = f" ({now['step'] / total:.1%})" if total else ""
    rows = [
        ("run", now["run_dir"] + (f", stage {now['stage']}" if now["stage"] else "")),
        ("job", " ".join(filter(None, [job["id"], job["state"], f"on {job['where']}" if job["where"] else ""]))
         + (f", start {now['starts']}" if now["starts"] else "")),
        ("step", f"{now['step']:,} of {total:,}{share}" if total else f"{now['step']:,}"),
        ("loss", "no step yet" if loss is None else f"{loss:.4f}, mean of the last {steps}: {now['loss_recent']:.4f}"),
        ("pace", _pace_words(now)),
        ("checkpoint", _checkpoint_words(now["checkpoint"])),
        ("data faults", "none" if not faults else f"{sum(faults.values()):,} samples: "
         + ", ".join(f"{number:,} {reason}" for reason, number in sorted(faults.items()))),
    ]  # fmt: skip
    if now["ranks"]:
        rows.insert(1, ("layout", f"{now['ranks']} ranks, {now['parallel']}"))
    if now["error"]:
        rows.append(("error", now["error"]))
    return "\n".join(f"{name:<12} {text}" for name, text in rows)


def _pace_words(now: dict[str, Any]) -> str:
    if now["tokens_per_second"] is None:
        return "no step yet"
    left = "" if now["eta_seconds"] is None else f", {duration(now['eta_seconds'])} left"
    return f"{now['tokens_per_second']:,.0f} tokens/s{left}, last step {duration(now['last_step_age'])} ago"


def _checkpoint_words(checkpoint: dict[str, Any] | None) -> str:
    return "none yet" if checkpoint is None else f"step {checkpoint['step']:,}, {duration(checkpoint['age'])} ago"


def show(run_dir: Path, as_json: bool) -> int:
    """Print it; the command's exit code."""
    now = status(run_dir)
    print(json.dumps(now) if as_json else screen(now))
    return 0
