"""What the data path dropped: said at every log step, listed in run_dir/quarantine; too much of it ends the run."""

from __future__ import annotations

from pathlib import Path

import torch
from megatron.bridge.training.callbacks import Callback, CallbackContext
from megatron.bridge.training.utils.pg_utils import get_pg_collection

from nemo_amalia.config.schema import RunConfig
from nemo_amalia.data.faults.board import FaultBoard
from nemo_amalia.data.faults.drop_limit import dropped, merged, names, over_limit, summary, unplanned_drops
from nemo_amalia.data.faults.quarantine import write_faults
from nemo_amalia.training.job.console import Console
from nemo_amalia.training.preflight.position import resumed_step, starts_anew
from nemo_amalia.utils.errors import DataError


class TooManyDroppedError(DataError):
    """A source of which more samples were dropped than data.max_dropped_fraction allows, with its worst shards."""


class DataFaults(Callback):
    """Every ``logging.interval`` steps and at the end: a line for each source with newly dropped samples, the
    list of them, and the judgement over all replicas. Counts begin at the start of the process, and workers read ahead:
    what is counted may be of a step that is still to come.
    """

    def __init__(self, console: Console, run: RunConfig, step):
        self.console, self.run, self.step = console, run, step
        self.replica: int | None = None  # of the one rank of a replica that speaks
        self._said: dict[str, int] = {}
        self._latest: list[str] = []  # lines of the last report
        self._seen: list[int] | None = None

    def on_train_start(self, context: CallbackContext) -> None:
        """Find out who speaks, and say what the user decided for this start."""
        groups = get_pg_collection(context.model)
        if not (groups.tp.rank() or groups.cp.rank() or groups.pp.rank()):
            self.replica = groups.dp.rank()
        if self.replica == 0 and starts_anew(self.run):
            self.console.say(f"[data] begins again at step {resumed_step(self.run)}, as data.start_anew_at says")

    def on_train_step_end(self, context: CallbackContext) -> None:
        """At the steps that log."""
        if (context.state.train_state.step + 1) % self.run.logging.interval == 0:
            self._report(last=False)

    def on_train_end(self, context: CallbackContext) -> None:
        """Once more, with every source of which something was dropped."""
        self._report(last=True)

    def write_list(self) -> None:
        """Append what was dropped since the last call to run_dir/quarantine/<replica>.jsonl."""
        board = self._board()
        if board is None or self.replica is None:
            return
        faults, missing, self._seen = board.log_since(self._seen or [0] * board.rows)
        if not faults and not missing:
            return
        file = Path(self.run.run_dir) / "quarantine" / f"{self.replica}.jsonl"
        file.parent.mkdir(exist_ok=True)
        with open(file, "a") as out:
            write_faults(out, faults, missing)
        if missing:
            self.console.say(
                f"[data] replica {self.replica}: {missing:,} dropped samples came too fast to be listed in {file}; "
                "they are counted"
            )

    def _board(self) -> FaultBoard | None:
        return None if self.step.loader is None else self.step.loader.faults

    def _report(self, last: bool) -> None:
        # Every rank takes part and judges the same counts, so that all end together and none waits for another.
        board, mine = self._board(), None
        if board is not None and self.replica is not None:
            mine = board.by_source(), board.by_shard()
            self._say(mine[0], last)
            self.write_list()
        everyone: list = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everyone, mine)
        found = [part for part in everyone if part is not None]
        shards: dict[tuple[str, str], int] = {}
        for _, counts in found:
            for shard, number in counts.items():
                shards[shard] = shards.get(shard, 0) + number
        message = over_limit(merged(sources for sources, _ in found), shards, self.run.data.max_dropped_fraction)
        if message is not None:
            raise TooManyDroppedError(message)

    def _say(self, sources: dict[str, dict[str, int]], last: bool) -> None:
        short, lines = names(sources), []
        for source, counts in sources.items():
            new = unplanned_drops(counts) > self._said.get(source, 0)  # what is quarantined alone is said at the end
            self._said[source] = unplanned_drops(counts)
            if new or (last and dropped(counts)):
                lines.append(f"[data] replica {self.replica} {short[source]}: {summary(counts)}")
        for line in lines:
            if line not in self._latest:  # the last step may have logged, too
                self.console.say(line)
        self._latest = lines
