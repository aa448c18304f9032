"""Whether a run may resume its data where the checkpoint left it; refused before a rank starts. Imports no Megatron."""

from __future__ import annotations

from pathlib import Path

from nemo_amalia.bridge.checkpoints import TRACKER
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.config.validation.run import model_ranks
from nemo_amalia.utils.errors import CheckpointError


def data_state(run: RunConfig) -> str:
    """Where the position in the data is kept, a folder an iteration, a file a data-parallel rank."""
    return str(Path(run.run_dir).absolute() / "data_state")


def resumed_step(run: RunConfig) -> int:
    """The step of the checkpoint that this run resumes from; 0 for a run that begins."""
    tracker = Path(run.run_dir) / "checkpoints" / TRACKER
    number = tracker.read_text().strip() if tracker.is_file() else ""
    return int(number) if number.isdigit() else 0


def starts_anew(run: RunConfig) -> bool:
    """Whether the user said that the data begins again at this very step, so that a later resume is exact again."""
    return run.data.start_anew_at is not None and run.data.start_anew_at == resumed_step(run)


def check_position(run: RunConfig, world_size: int) -> None:
    """Raise CheckpointError where the checkpoint has no data position, or one of another number of data-parallel ranks.

    Bridge begins the data again without a word where data_state/ is missing, and with a traceback where the file of one
    rank is. What else a position depends on (workers, seed, lengths, data) lies inside it: Stream.restore.
    """
    step = resumed_step(run)
    if not step or starts_anew(run):
        return
    ranks = world_size // model_ranks(run)
    folder = Path(data_state(run)) / f"iter_{step:07d}"
    files = sorted(folder.glob("train_dataloader_dprank*.pt"))
    mend = f"or begin the data again with data.start_anew_at={step} and accept that samples are seen again"
    if not files:
        raise CheckpointError(
            f"the checkpoint of step {step} has no position in the data: {folder} is missing or empty. Put it back, "
            f"{mend}"
        )
    if len(files) != ranks and run.data.pack_index is None:  # with an index one position serves every rank
        raise CheckpointError(
            f"the checkpoint of step {step} has the data positions of {len(files)} data-parallel ranks ({folder}) and "
            f"this run has {ranks}: resume with {len(files) * model_ranks(run)} ranks, {mend}"
        )
