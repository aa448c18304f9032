"""A bar while a run goes on, what `status` says at any time, and the report at the end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.engine.commit import short
from data_prep.engine.folder import RunFolder
from data_prep.engine.ledger import Ledger, named
from data_prep.engine.run_state import SILENT_SECONDS, Reader
from data_prep.engine.steps import Phase
from nemo_amalia.utils.files import read_json


class Progress:
    """Shows a local run: a bar for each phase on a terminal, a line every conf.progress_seconds elsewhere."""

    def __init__(self, conf: Any, phases: list[Phase], say: Callable[[str], None]) -> None:
        self._reader, self._say, self._stop = Reader(conf, phases), say, threading.Event()
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


def status_lines(conf: Any, phases: list[Phase]) -> list[str]:
    """What `amalia-data NAME status` prints. Raises DataError where no run has begun."""
    folder = RunFolder(conf)
    run = folder.run()
    lines = [f"{conf.name}: {folder.path}, begun at commit {short(run['commit'])}, seed {run['seed']}"]
    for state in Reader(conf, phases).states():
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
    """What a run prints at its end: every step of every phase, and the shards."""
    lines = []
    for phase in report["phases"]:
        ledger = Ledger.from_json(phase["ledger"])
        steps = Ledger.from_json(phase["barrier"]).steps if phase["barrier"] else []
        lines.append(f"{phase['name']}: {ledger.records:,} records, {ledger.samples:,} samples")
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


def _ending(path: Path) -> str:
    if not path.is_file():
        return "not finished"
    report = read_json(path)
    return f"finished: {report['shards']['samples']:,} samples -> {report['out']}"
