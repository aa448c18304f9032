"""The losses and metrics of preference pairs, as pure functions of log-probabilities. fp32, one value a pair.

A log-probability is the sum over the tokens of an answer that are learned; a log ratio is the policy's minus the
reference's, and a margin is the chosen answer's log ratio minus the rejected one's. beta is
``reference_policy_kl_penalty``. The formulas are those of TRL 1.16 (trl/trainer/dpo_trainer.py, _compute_loss), against
which tests/parity/test_dpo_trl.py trains, wherever TRL has them; where it has not, the docstring says whose they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_amalia.config.schema import PreferenceConfig


@dataclass(frozen=True)
class PairLogProbs:
    """What a loss needs of P pairs, each field [P]: log-probabilities in fp32, and the tokens they are sums over."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    def log_ratios(self, average: bool = False) -> tuple[Tensor, Tensor]:
        """(chosen, rejected); ``average``: a token, not summed (NeMo RL's preference_average_log_probs)."""
        chosen, rejected = self.chosen - self.reference_chosen, self.rejected - self.reference_rejected
        return (chosen / self.chosen_tokens, rejected / self.rejected_tokens) if average else (chosen, rejected)


def sigmoid_loss(margin: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """DPO (arXiv 2305.18290, eq. 7): -log sigmoid(beta margin), the mean of both signs with ``label_smoothing``.

    With smoothing e it is conservative DPO (E. Mitchell, "A note on DPO with noisy preferences", 2023):
    -(1 - e) log sigmoid(beta margin) - e log sigmoid(-beta margin). TRL's ``sigmoid`` takes no notice of its
    label_smoothing.
    """
    x = beta * margin
    return -(1 - label_smoothing) * F.logsigmoid(x) - label_smoothing * F.logsigmoid(-x)


def robust_loss(margin: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO (arXiv 2403.00409, eq. 11): unbiased where a share e < 0.5 of the labels is flipped.

    (-(1 - e) log sigmoid(beta margin) + e log sigmoid(-beta margin)) / (1 - 2e), as TRL has it.
    """
    x, e = beta * margin, label_smoothing
    return (-(1 - e) * F.logsigmoid(x) + e * F.logsigmoid(-x)) / (1 - 2 * e)


def ipo_loss(average_margin: Tensor, beta: float) -> Tensor:
    """IPO (arXiv 2310.12036, eq. 17): (margin - 1 / (2 beta))^2, of log ratios averaged over tokens.

    The average is TRL's, which asked IPO's authors; summed, the square grows with the length of an answer.
    """
    return (average_margin - 1 / (2 * beta)) ** 2


def quality_loss(chosen_ratio: Tensor, rejected_ratio: Tensor, beta: float) -> Tensor:
    """MPO's quality term (arXiv 2411.10442, eq. 4 and 5), BCO on each answer alone, with a reward shift of 0.

    -log sigmoid(beta chosen_ratio) - log sigmoid(-beta rejected_ratio): TRL's ``bco_pair``. The paper subtracts a
    running mean of rewards; TRL 1.16 does not, and neither do we: it would depend on the layout and on a resume.
    """
    return -F.logsigmoid(beta * chosen_ratio) - F.logsigmoid(-beta * rejected_ratio)


def sft_loss(chosen: Tensor, chosen_tokens: Tensor) -> Tensor:
    """MPO's generation term (arXiv 2411.10442, eq. 6): minus the chosen answer's mean log-probability a token.

    NeMo RL's sft_average_log_probs=true. TRL's ``sft`` is the mean over the tokens of a batch: the same for one pair.
    """
    return -chosen / chosen_tokens


def pair_losses(pairs: PairLogProbs, settings: PreferenceConfig) -> dict[str, Tensor]:
    """``loss`` [P], the weighted sum, and each term that has a weight: ``loss/preference``, ``/quality``, ``/sft``.

    length_normalised: sigmoid, robust and quality of log ratios averaged over tokens (TRL's ``sigmoid_norm``).
    """
    beta, smoothing, kind = settings.reference_policy_kl_penalty, settings.label_smoothing, settings.preference_loss
    terms: list[tuple[str, float, Tensor]] = []
    chosen, rejected = pairs.log_ratios(average=settings.length_normalised or kind == "ipo")
    if settings.preference_loss_weight:
        margin = chosen - rejected
        if kind == "ipo":
            value = ipo_loss(margin, beta)
        else:
            value = {"sigmoid": sigmoid_loss, "robust": robust_loss}[kind](margin, beta, smoothing)
        terms.append(("loss/preference", settings.preference_loss_weight, value))
    if settings.quality_loss_weight:
        ratios = pairs.log_ratios(average=settings.length_normalised)
        terms.append(("loss/quality", settings.quality_loss_weight, quality_loss(*ratios, beta)))
    if settings.sft_loss_weight:
        terms.append(("loss/sft", settings.sft_loss_weight, sft_loss(pairs.chosen, pairs.chosen_tokens)))
    total = torch.stack([weight * value for _, weight, value in terms]).sum(0)
    return {"loss": total, **({name: value for name, _, value in terms} if len(terms) > 1 else {})}


def pair_metrics(pairs: PairLogProbs, beta: float) -> dict[str, Tensor]:
    """TRL's metrics by TRL's names, and ``kl``; each [P], without gradients.

    rewards: beta times the summed log ratios. accuracies: 1 where the chosen reward is larger, 0 at a tie.
    kl: k3 of J. Schulman's "Approximating KL Divergence" (2020), e^-r - 1 + r >= 0, of r, the log ratio a token,
    mean of both answers; in nats a token. The answers are the data's, not samples of the policy: a drift to watch.
    """
    with torch.no_grad():
        chosen, rejected = (beta * ratio for ratio in pairs.log_ratios())
        drift = [torch.expm1(-ratio) + ratio for ratio in pairs.log_ratios(average=True)]
        return {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margins": chosen - rejected,
            "rewards/accuracies": (chosen > rejected).float(),
            "logps/chosen": pairs.chosen.detach(),
            "logps/rejected": pairs.rejected.detach(),
            "kl": (drift[0] + drift[1]) / 2,
        }
