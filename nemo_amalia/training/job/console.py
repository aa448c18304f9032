"""Two voices: the run's own lines, which a person reads, and the libraries', which go to run_dir/logs.

``amalia train`` shows the file that AMALIA_CONSOLE names while its ranks write to it; without it (plain torchrun,
Slurm) the lines go to the rank's own stdout.
"""

import os
import sys
from functools import cache
from pathlib import Path

from nemo_amalia.utils.errors import UserError
from nemo_amalia.utils.text import one_line

CONSOLE_VARIABLE = "AMALIA_CONSOLE"

LOADING = "loading PyTorch and Megatron: 10 to 50 s"  # alone, or beside other work: docs/planning.md

_voice: int | None = None  # the descriptor that was stdout


def keep_stdout() -> None:
    """From here on what libraries print while they are imported goes to stderr; a Console still speaks on stdout."""
    global _voice
    if _voice is None:
        sys.stdout.flush()
        _voice = os.dup(1)
        os.dup2(2, 1)


@cache
def announce_loading() -> None:
    """One line on stderr, once, before imports that take so long that a person wonders; stdout has results alone."""
    print(LOADING, file=sys.stderr, flush=True)


class Console:
    """Where this rank's readable lines go."""

    def __init__(self, run_dir: str | Path, rank: int):
        self.rank = rank
        self.log = Path(run_dir) / "logs" / f"rank_{rank}.log"
        target = os.environ.get(CONSOLE_VARIABLE)
        self._stream = open(target, "a", buffering=1) if target else os.fdopen(os.dup(_voice or 1), "w", buffering=1)

    def redirect_libraries(self) -> None:
        """From here on whatever is printed by anybody else goes to the rank's log file."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        file = open(self.log, "a", buffering=1)
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

    def say(self, line: str) -> None:
        """One line for the person who started the run."""
        self._stream.write(line + "\n")
        self._stream.flush()

    def fail(self, error: BaseException) -> None:
        """The one line of an error; the traceback is in the log."""
        text = one_line(error) or type(error).__name__
        if isinstance(error, UserError):
            self.say(f"error: {text}")
        else:
            self.say(f"error: {type(error).__name__}: {text} (traceback: {self.log})")
