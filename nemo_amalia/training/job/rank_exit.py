"""How a rank ends: what its exit code tells the batch script, and who speaks first when several fail."""

from __future__ import annotations

import os
import signal
import time

from nemo_amalia.utils.errors import FAILED, PEER_LOST, STOPPED, USER_ERROR, UserError

PEER_PATIENCE = 5.0  # seconds
# What Gloo, NCCL and torch's store say when another rank is gone.
_WORDS_OF_A_LOST_PEER = (
    "closed by peer",
    "reset by peer",
    "Broken pipe",
    "ncclRemoteError",
    "NCCL communicator was aborted",
    "failed to recv",
    "(SIGTERM)",  # a data worker's end: Slurm is ending the step, for a reason that somebody else has
)


def code_of(error: BaseException) -> int:
    """The exit code of a rank that ends by ``error``."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, UserError):
        return USER_ERROR
    return PEER_LOST if _lost_a_peer(error) else FAILED


def let_the_culprit_speak(error: BaseException) -> None:
    """Wait a moment where ``error`` is about another rank: its own message, and its node, are to come first."""
    if _lost_a_peer(error):
        time.sleep(PEER_PATIENCE)


def _lost_a_peer(error: BaseException) -> bool:
    # By type first: a user's error may quote any words.
    return isinstance(error, RuntimeError | OSError | EOFError) and any(
        words in str(error) for words in _WORDS_OF_A_LOST_PEER
    )


def stop_on_usr1() -> None:
    """SIGUSR1 stops this rank as SIGTERM does: it saves a checkpoint after its step. Before it trains it just ends.

    Slurm's signals reach forked data workers, too, where every process of a task gets them; SIGTERM would end those
    before the checkpoint is saved. They inherit this handler, and it does nothing there.
    """
    rank = os.getpid()

    def stop(*_) -> None:
        if os.getpid() != rank:
            return
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            os._exit(STOPPED)
        os.kill(rank, signal.SIGTERM)

    signal.signal(signal.SIGUSR1, stop)
