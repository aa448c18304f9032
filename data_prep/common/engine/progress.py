"""How far a run is: read from its files, whoever writes them; a bar while it runs, `status` at any time."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.common.engine.commit import short
from data_prep.common.engine.folder import RunFolder, StageFolder, chunk_ledger
from data_prep.common.engine.ledger import Ledger, named
from data_prep.common.engine.pulse import alive
from data_prep.common.engine.steps import Stage

SILENT_SECONDS = 30  # a task that says nothing for so long has ended, or its machine has
BAR = 20  # characters


@dataclass
class StageState:
    """A stage now. records: None before it is planned. rate: records a second of running tasks. barrier: its own.
    notes: what tasks that have not ended well said as they began, and the hosts of those that did.
    """

    name: str
    records: int | None
    ledger: Ledger
    barrier: Ledger | None = None
    rate: float = 0.0
    running: int = 0
    failed: list[str] = field(default_factory=list)
    silent: int = 0
    notes: dict[str, list[str]] = field(default_factory=dict)

    def seconds_left(self) -> float | None:
        """None while it is not known."""
        left = (self.records or 0) - self.ledger.records
        return left / self.rate if self.records is not None and self.rate > 0 else None

    def __str__(self) -> str:
        if self.records is None:
            return f"{self.name:24} waits"
        done, share = self.ledger.records, self.ledger.records / max(1, self.records)
        words = [f"{self.name:24} {'#' * int(share * BAR):.<{BAR}} {done:,}/{self.records:,}"]
        words.append(f"{self.ledger.samples:,} out")
        dropped = self.ledger.dropped()
        if dropped:
            most = named(dict(dropped.most_common(3)))
            words.append(f"{dropped.total():,} dropped ({most}{', ...' if len(dropped) > 3 else ''})")
        used = self.ledger.usage
        if used["calls"] or used["cached"]:
            words.append(f"{used['calls']:,} calls (+{used['cached']:,} cached)")
            words.append(f"{used['tokens_in'] + used['tokens_out']:,} tokens  cost {used['cost']:.2f}")
        if retried := self.ledger.retried:
            words.append(f"{retried.total():,} retried ({named(retried)})")
        if (left := self.seconds_left()) and self.running:
            words.append(f"{self.rate:,.1f}/s  left {_clock(left)}")
        return "  ".join(words)


class Reader:
    """Reads a run's files again and again; what is sealed is read once."""

    def __init__(self, conf: Any, stages: list[Stage]) -> None:
        self._folder, self._stages = RunFolder(conf), stages
        self._sealed: dict[str, dict[int, Ledger]] = {stage.name: {} for stage in stages}

    def states(self) -> list[StageState]:
        """Of all stages."""
        return [self._state(stage, self._folder.stage(stage)) for stage in self._stages]

    def _state(self, stage: Stage, folder: StageFolder) -> StageState:
        total = Ledger.of([step.name for step in stage.steps])
        plan = json.loads(folder.plan.read_text()) if folder.plan.is_file() else None
        state = StageState(stage.name, plan and plan["records"], total)
        if plan and plan["ledger"]:
            state.barrier = Ledger.from_json(plan["ledger"])
        sealed = self._sealed[stage.name]
        live = [json.loads(path.read_text()) for path in (folder.path / "live").glob("[0-9]*.json")]
        for chunk in folder.sealed().keys() - sealed.keys():
            sealed[chunk] = chunk_ledger(folder, chunk)
        for ledger in sealed.values():
            total.add(ledger)
        open_chunks = {}
        for task in sorted(live, key=lambda task: task["updated"]):  # an earlier start may have had other tasks
            for chunk, ledger in task["open"].items():
                if int(chunk) not in sealed:
                    open_chunks[int(chunk)] = Ledger.from_json(ledger)
            self._count(state, task)
        for ledger in open_chunks.values():
            total.add(ledger)
        if total.records == state.records:
            state.failed, state.silent, state.notes = [], 0, {}
        else:
            for task in live:
                total.retried.update(task.get("retried"))
        return state

    @staticmethod
    def _count(state: StageState, task: dict[str, Any]) -> None:
        if task["state"] != "done":
            for note in task.get("notes", ()):
                state.notes.setdefault(note, []).append(task["host"])
        if task["state"] == "failed":
            state.failed.append(f"task {task['task']} on {task['host']} failed: {task['error']}")
        elif task["state"] == "done":
            return
        elif time.time() - task["updated"] > SILENT_SECONDS or _ended_here(task):
            state.silent += 1
        else:
            state.running += 1
            state.rate += task["records"] / max(1e-3, task["updated"] - task["started"])


class Progress:
    """Shows a local run: a bar for each stage on a terminal, a line every conf.progress_seconds elsewhere."""

    def __init__(self, conf: Any, stages: list[Stage], say: Callable[[str], None]) -> None:
        self._reader, self._say, self._stop = Reader(conf, stages), say, threading.Event()
        self._terminal = sys.stderr.isatty()
        self._seconds = 1.0 if self._terminal else conf.progress_seconds
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._lines, self._said = 0, ""

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """Draws for the last time; what is said afterwards stands below."""
        self._stop.set()
        self._thread.join()

    def _show(self) -> None:
        while not self._stop.wait(self._seconds):
            self._print()
        if self._terminal:
            self._print()

    def _print(self) -> None:
        states = [state for state in self._reader.states() if state.records is not None]
        if self._terminal:
            up = f"\x1b[{self._lines}A" if self._lines else ""
            sys.stderr.write(up + "".join(f"\x1b[2K{state}\n" for state in states))
            sys.stderr.flush()
            self._lines = len(states)
        elif states and (line := str(states[-1])) != self._said:
            self._say(line)
            self._said = line


def status_lines(conf: Any, stages: list[Stage]) -> list[str]:
    """What `amalia-data NAME status` prints. Raises ValueError where no run has begun."""
    folder = RunFolder(conf)
    run = folder.run()
    lines = [f"{conf.name}: {folder.path}, begun at commit {short(run['commit'])}, seed {run['seed']}"]
    for state in Reader(conf, stages).states():
        if state.barrier:
            lines.append(f"  {state.barrier.steps[0].name}: {state.barrier.steps[0]}")
        lines.append(str(state))
        lines += [f"    {step.name:22} {step}" for step in state.ledger.steps if step.into]
        lines += [f"    {text}" for text in state.failed]
        for note, hosts in state.notes.items():
            some = ", ".join(sorted(set(hosts))[:3])
            lines.append(f"    {len(hosts):,} tasks (on {some}) when they began: {note}")
        if state.silent:
            killed = f"{state.silent} tasks were killed, or say nothing for {SILENT_SECONDS} s"
            lines.append(f"    {killed}: run the same command again")
    lines.append(_ending(folder.report))
    return lines


def report_lines(report: dict[str, Any]) -> list[str]:
    """What a run prints at its end: every step of every stage, and the shards."""
    lines = []
    for stage in report["stages"]:
        ledger = Ledger.from_json(stage["ledger"])
        steps = Ledger.from_json(stage["barrier"]).steps if stage["barrier"] else []
        lines.append(f"{stage['name']}: {ledger.records:,} records, {ledger.samples:,} samples")
        lines += [f"  {step.name:24} {step}" for step in [*steps, *ledger.steps]]
        if (used := ledger.usage)["calls"] or used["cached"]:
            tokens = f"{used['tokens_in']:,} tokens in, {used['tokens_out']:,} out"
            again = f", {ledger.retried.total():,} retried ({named(ledger.retried)})" if ledger.retried else ""
            calls = f"{used['calls']:,} calls{again}, {used['cached']:,} cached"
            lines.append(f"  {calls}, {tokens}, cost {used['cost']:.2f}")
    shards = report["shards"]
    written = f"{shards['samples']:,} samples, {shards['images']:,} images, {shards['shards']:,} shards"
    lines.append(f"{written}, {shards['bytes'] / 1e6:,.1f} MB -> {report['out']}")
    return lines


def _ended_here(task: dict[str, Any]) -> bool:
    """Killed on this machine: nobody needs to wait until it has been silent for long."""
    return task["host"] == socket.gethostname() and "pid" in task and not alive(task["pid"])


def _ending(path: Path) -> str:
    if not path.is_file():
        return "not finished"
    report = json.loads(path.read_text())
    return f"finished: {report['shards']['samples']:,} samples -> {report['out']}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{rest:02d}s"
