"""The forward step of stage 3: one micro-batch of preference pairs in, the summed losses of its pairs out.

A token's log-probability is minus the model's loss for it, Megatron's vocabulary-parallel cross entropy: logits are
never gathered. An answer's is the sum over its segment; under CP every rank sums its own tokens and an all-reduce adds
them. The loss goes to Megatron with the number of pairs where SFT's has that of tokens, so it is a mean over the pairs
of the global batch at every layout (docs/architecture.md). Every CP rank computes the same loss and only the first
counts it: what each sends back goes to its own tokens, and Megatron's sum over DP x CP adds each gradient once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from nemo_amalia.config.schema import PreferenceConfig
from nemo_amalia.data.samples import PackedBatch
from nemo_amalia.training.steps.counts import StepCounts
from nemo_amalia.training.steps.log_probs import segment_log_probs
from nemo_amalia.training.steps.preference_loss import PairLogProbs, pair_losses, pair_metrics
from nemo_amalia.training.steps.sft import SFTStep, refuse_non_finite
from nemo_amalia.utils.errors import DataError


@dataclass(frozen=True)
class Answers:
    """Of the 2P segments of pairs, on the host: learned tokens [2P], and the last one's id [2P]."""

    tokens: Tensor
    last: Tensor


class Reference(Protocol):
    """Where the reference's log-probabilities come from: reference/file.py, or a model (reference/in_memory.py)."""

    def log_probs(self, batch: PackedBatch, answers: Answers, inputs: dict, groups) -> Tensor:
        """[2P] of the segments of ``batch``, fp32; asked on the last pipeline stage alone."""


class DPOStep(SFTStep):
    """Callable in the form that Bridge's loop takes. end_of_turn: the token that ends an answer which is whole."""

    def __init__(self, counts: StepCounts, settings: PreferenceConfig, reference: Reference, end_of_turn: int):
        super().__init__(counts)
        self.settings, self.reference, self.end_of_turn = settings, reference, end_of_turn

    def loss_function(self, batch: PackedBatch, inputs: dict, loss_mask: Tensor, groups, step: int):
        """The function that Megatron calls with the token losses, on the last pipeline stage."""
        return partial(self._pair_loss, batch, inputs, loss_mask, groups, step)

    def _pair_loss(self, batch: PackedBatch, inputs: dict, loss_mask: Tensor, groups, step: int, output: Tensor):
        """(summed loss, pairs, [sum, pairs] by name). Raises NonFiniteLossError with the keys of the pairs."""
        answers = answers_of(batch)
        policy = segment_log_probs(output, loss_mask, batch, groups.cp)
        reference = self.reference.log_probs(batch, answers, inputs, groups).to(policy.device)
        tokens = answers.tokens.to(policy)
        pairs = PairLogProbs(*policy.view(-1, 2).T, *reference.view(-1, 2).T, *tokens.view(-1, 2).T)
        terms = pair_losses(pairs, self.settings)
        loss = terms["loss"].sum()
        refuse_non_finite(loss, step=step, keys=batch.keys, what="pairs")
        truncated = (answers.last != self.end_of_turn).view(-1, 2).any(1)
        values = terms | pair_metrics(pairs, self.settings.reference_policy_kl_penalty)
        values["truncated"] = truncated.to(policy)
        counted = batch.num_pairs if groups.cp.rank() == 0 else 0
        weight = float(counted > 0)
        count = loss.new_tensor(counted)
        report = {name: torch.stack([value.detach().sum() * weight, count]) for name, value in values.items()}
        return loss, count.to(torch.int), report


def answers_of(batch: PackedBatch) -> Answers:
    """Raises DataError for a batch of conversations, and for an answer without a learned token, naming its pair."""
    if batch.keys and not batch.num_pairs:
        raise DataError(
            f"stage dpo got a micro-batch of conversations ({', '.join(batch.keys[:3])}) where it needs preference "
            "pairs: name data of `amalia data import preference` in data.path"
        )
    labels, mask = batch.labels.reshape(-1), batch.loss_mask.reshape(-1) > 0
    bounds = batch.cu_seqlens
    if bounds is None:
        bounds = torch.arange(len(batch.labels) + 1) * batch.labels.shape[1]
    tokens, last = [], []
    for index, (start, end) in enumerate(pairwise(bounds[: 2 * batch.num_pairs + 1].tolist())):
        learned = labels[start:end][mask[start:end]]
        if not len(learned):
            answer = ("chosen", "rejected")[index % 2]
            raise DataError(
                f"the {answer} answer of pair {batch.keys[index // 2]} has no token to learn: leave the pair out, or "
                "prepare the data again with `amalia data import preference`, which refuses it"
            )
        tokens.append(len(learned))
        last.append(int(learned[-1]))
    return Answers(torch.tensor(tokens, dtype=torch.int64), torch.tensor(last, dtype=torch.int64))
