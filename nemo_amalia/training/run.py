"""One training run, in a rank: read the model, build the container, train."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from megatron.bridge.training.callbacks import Callback
from megatron.bridge.training.config import ConfigContainer
from megatron.bridge.training.finetune import finetune
from megatron.core.extensions.transformer_engine import HAVE_TE

from nemo_amalia.bridge.checkpoints import assets_of
from nemo_amalia.bridge.saved_config import read_provider
from nemo_amalia.config.schema import PREFERENCE_STAGE, RunConfig
from nemo_amalia.config.validation.model import check_model_layout
from nemo_amalia.data.loading.workers import WorkerLostError
from nemo_amalia.training.callbacks.data_faults import DataFaults
from nemo_amalia.training.callbacks.progress import Progress
from nemo_amalia.training.callbacks.prune_positions import PruneDataState
from nemo_amalia.training.job.console import Console
from nemo_amalia.training.preflight.position import check_position, resumed_step
from nemo_amalia.training.preflight.resume import check_resume, keep_config
from nemo_amalia.training.preflight.steps import settle_steps
from nemo_amalia.training.reference.file import FileReference, reference_command, reference_path
from nemo_amalia.training.reference.fingerprint import fingerprint
from nemo_amalia.training.reference.in_memory import ModelReference
from nemo_amalia.training.setup.bridge_config import build_container
from nemo_amalia.training.steps.counts import StepCounts
from nemo_amalia.training.steps.dpo import DPOStep
from nemo_amalia.training.steps.sft import SFTStep
from nemo_amalia.utils.errors import STOPPED
from nemo_amalia.utils.files import atomic_folder

LAST_WORDS = 2.0  # seconds


def train(run: RunConfig, console: Console, backend: str, overrides: Sequence[str] = ()) -> None:
    """Train one stage to its end, resuming from run_dir/checkpoints where there is something.

    overrides: the words that the run was started with, for an error to name the command that goes with them.

    Raises ConfigError for what a user can mend (the layout, a sample, a checkpoint), before or while training.
    """
    container, step, callbacks = prepare_run(run, console, backend, overrides)
    try:
        finetune(container, step, callbacks=callbacks)
    except SystemExit as stop:  # Bridge leaves so after a signal, with its checkpoint saved
        if stop.code or console.rank:
            raise
        console.say(f"[{run.stage.name}] stopped by a signal, saved step {resumed_step(run)}: the same command goes on")
        time.sleep(LAST_WORDS)  # this code ends the other ranks' step: let them finish
        raise SystemExit(STOPPED) from stop
    except Exception as error:
        for callback in callbacks:
            if isinstance(callback, DataFaults):
                callback.write_list()
        # torch raises the death of a worker wherever this process happens to be, and names a pid alone.
        lost = step.loader.lost_worker() if step.loader is not None else None
        if lost is None or isinstance(error, WorkerLostError):
            raise
        raise WorkerLostError(lost) from error


def prepare_run(
    run: RunConfig, console: Console, backend: str, overrides: Sequence[str] = ()
) -> tuple[ConfigContainer, SFTStep, list[Callback]]:
    """Everything that Bridge's loop takes, from the run schema. overrides: as train's."""
    length = settle_steps(run)
    if length and not console.rank:
        console.say(length)
    model = read_provider(run.model.checkpoint)
    check_model_layout(run, model, engine=HAVE_TE)
    check_resume(run)
    check_position(run, int(os.environ.get("WORLD_SIZE", 1)))
    if not console.rank:
        keep_config(run)
    assets = keep_assets(run, console.rank)
    container = build_container(run, model, assets, backend)
    counts = StepCounts()
    step = build_step(run, container, assets, counts, console.rank, overrides)
    callbacks = [Progress(console, run, counts), DataFaults(console, run, step), PruneDataState(run)]
    return container, step, callbacks


def build_step(
    run: RunConfig,
    container: ConfigContainer,
    assets: Path,
    counts: StepCounts,
    rank: int,
    overrides: Sequence[str] = (),
) -> SFTStep:
    """The forward step of this stage. Raises ConfigError, on rank 0, for a reference that is not this run's."""
    if run.stage.name != PREFERENCE_STAGE:
        return SFTStep(counts)
    from transformers import AutoTokenizer

    from nemo_amalia.data.encoding.chat import ChatFormat

    chat = ChatFormat(AutoTokenizer.from_pretrained(assets))
    if run.stage.reference == "in_memory":
        reference = ModelReference(container.model, run.model.checkpoint)
    else:  # one rank compares: it reads a little of every tensor of the checkpoint
        wanted = None if rank else fingerprint(run, chat, container.model.image_geometry())
        reference = FileReference(reference_path(run), reference_command(run, overrides), wanted)
    end_of_turn = chat.tokenizer.convert_tokens_to_ids(chat.end_of_turn)
    return DPOStep(counts, run.stage.preference, reference, end_of_turn)


def keep_assets(run: RunConfig, rank: int) -> Path:
    """Tokenizer, processor and configs travel with the run's checkpoints, so that they export on their own."""
    source = assets_of(run.model.checkpoint)
    target = Path(run.run_dir).absolute() / "checkpoints" / "hf"
    if rank == 0 and not target.exists():
        with atomic_folder(target) as partial:
            shutil.copytree(source, partial, dirs_exist_ok=True)
    return source.absolute()
