"""How far a run is: read from its files, whoever writes them."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from typing import Any

from data_prep.engine.folder import PhaseFolder, RunFolder, chunk_ledger
from data_prep.engine.ledger import Ledger, named
from data_prep.engine.pulse import alive
from data_prep.engine.steps import Phase
from nemo_amalia.utils.files import read_json
from nemo_amalia.utils.text import duration

SILENT_SECONDS = 30  # a task that says nothing for so long has ended, or its machine has
BAR = 20  # characters


@dataclass
class PhaseState:
    """A phase now. records: None before it is planned. barrier: its own. rate: records a second of running tasks,
    without the time that pauses took. pauses: seconds that servers asked its tasks to wait, by server. notes: what
    tasks that have not ended well said as they began, and the hosts of those that did.
    """

    name: str
    records: int | None
    ledger: Ledger
    barrier: Ledger | None = None
    rate: float = 0.0
    running: int = 0
    failed: list[str] = field(default_factory=list)
    silent: int = 0
    pauses: dict[str, float] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def seconds_left(self) -> float | None:
        """None while it is not known."""
        if self.records is None or self.rate <= 0:
            return None
        return (self.records - self.ledger.records) / self.rate + max(self.pauses.values(), default=0.0)

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
        for server, seconds in sorted(self.pauses.items()):
            words.append(f"{server} asked to wait {duration(seconds)}")
        if (left := self.seconds_left()) and self.running:
            words.append(f"{self.rate:,.1f}/s  left {duration(left)}")
        return "  ".join(words)


class Reader:
    """Reads a run's files again and again; what is sealed is read once."""

    def __init__(self, conf: Any, phases: list[Phase]) -> None:
        self._folder, self._phases = RunFolder(conf), phases
        self._sealed: dict[str, dict[int, Ledger]] = {phase.name: {} for phase in phases}

    def states(self) -> list[PhaseState]:
        """Of all phases."""
        return [self._state(phase, self._folder.phase(phase)) for phase in self._phases]

    def _state(self, phase: Phase, folder: PhaseFolder) -> PhaseState:
        total = Ledger.of([step.name for step in phase.steps])
        plan = read_json(folder.plan) if folder.plan.is_file() else None
        state = PhaseState(phase.name, plan and plan["records"], total)
        if plan and plan["ledger"]:
            state.barrier = Ledger.from_json(plan["ledger"])
        sealed = self._sealed[phase.name]
        live = [read_json(path) for path in (folder.path / "live").glob("[0-9]*.json")]
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
    def _count(state: PhaseState, task: dict[str, Any]) -> None:
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
            for server, until in task.get("paused_until", {}).items():
                if (seconds := until - time.time()) > 0:
                    state.pauses[server] = max(seconds, state.pauses.get(server, 0.0))
            seconds = task["updated"] - task["started"] - task.get("waited", 0.0)
            state.rate += task["records"] / max(1e-3, seconds)


def _ended_here(task: dict[str, Any]) -> bool:
    """Killed on this machine: nobody needs to wait until it has been silent for long."""
    return task["host"] == socket.gethostname() and "pid" in task and not alive(task["pid"])
