"""Delete dataloader positions together with their checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from megatron.bridge.training.callbacks import Callback, CallbackContext

from nemo_amalia.config.schema import RunConfig


class PruneDataState(Callback):
    """Data positions follow their checkpoints: those whose checkpoint keep_last has deleted go too."""

    def __init__(self, run: RunConfig):
        self.checkpoints = Path(run.run_dir) / "checkpoints"
        self.positions = Path(run.run_dir) / "data_state"

    def on_checkpoint_save(self, context: CallbackContext) -> None:
        """After a save, on one rank. A position newer than every checkpoint belongs to a save still being written."""
        if torch.distributed.get_rank():
            return
        kept = {folder.name for folder in self.checkpoints.glob("iter_*")}
        for folder in self.positions.glob("iter_*"):
            if kept and folder.name not in kept and folder.name < max(kept):
                shutil.rmtree(folder)
