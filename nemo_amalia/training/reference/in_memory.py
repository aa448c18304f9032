"""stage.reference=in_memory: a frozen second model beside the policy, at the same layout, where there is room."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from megatron.bridge.training.checkpointing import _load_model_weights_from_checkpoint
from torch import Tensor

from nemo_amalia.bridge.checkpoints import latest_iteration
from nemo_amalia.data.samples import PackedBatch
from nemo_amalia.model.provider import AmaliaVLModelProvider
from nemo_amalia.training.steps.log_probs import segment_log_probs


class ModelReference:
    """provider: the policy's, laid out for this run. checkpoint: what the stage starts from, also when it resumes."""

    def __init__(self, provider: AmaliaVLModelProvider, checkpoint: str | Path):
        self.provider, self.checkpoint = provider, latest_iteration(checkpoint)
        self.model = None

    def log_probs(self, batch: PackedBatch, answers, inputs: dict, groups) -> Tensor:
        """[2P]. The first call builds the model, on all ranks at once: Megatron's groups exist by then."""
        if self.model is None:
            self.model = frozen_model(self.provider, self.checkpoint, groups)[0]
        with torch.no_grad():
            output, loss_mask = self.model(**inputs)
            return segment_log_probs(output, loss_mask, batch, groups.cp)


def frozen_model(provider: AmaliaVLModelProvider, iteration: Path, groups) -> list:
    """This rank's part of the model with the weights of ``iteration``, to be run forward alone; one a virtual stage."""
    model = copy.copy(provider).provide_distributed_model(wrap_with_ddp=False, pg_collection=groups)
    _load_model_weights_from_checkpoint(str(iteration), model)
    for part in model:
        part.requires_grad_(False)
        part.eval()
    return model
