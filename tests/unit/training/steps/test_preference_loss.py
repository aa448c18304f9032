"""The losses of pairs against their formulas written out in Python's floats; TRL's own code is in tests/parity."""

import math

import pytest
import torch

from nemo_amalia.config.schema import PreferenceConfig
from nemo_amalia.training.steps.preference_loss import PairLogProbs, pair_losses, pair_metrics

CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED = (-12.5, -3.0), (-20.25, -2.0), (-13.0, -2.5), (-18.0, -4.0)
TOKENS_CHOSEN, TOKENS_REJECTED = (5, 2), (9, 1)


def pairs(**changes):
    values = dict(chosen=CHOSEN, rejected=REJECTED, reference_chosen=REFERENCE_CHOSEN)
    values |= dict(reference_rejected=REFERENCE_REJECTED, chosen_tokens=TOKENS_CHOSEN, rejected_tokens=TOKENS_REJECTED)
    return PairLogProbs(**{name: torch.tensor(value) for name, value in (values | changes).items()})


def equal_to_reference():
    return pairs(reference_chosen=CHOSEN, reference_rejected=REJECTED)


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def expected(formula, average=False):
    """The formula of (chosen ratio, rejected ratio), for both pairs."""
    rows = zip(CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, TOKENS_CHOSEN, TOKENS_REJECTED, strict=True)
    return [formula((c - rc) / (n if average else 1), (r - rr) / (m if average else 1)) for c, r, rc, rr, n, m in rows]


def loss_of(**settings):
    return pair_losses(pairs(), PreferenceConfig(**settings))["loss"].tolist()


BETA = 0.3
ON_SUMS = {
    "sigmoid": (dict(), lambda c, r: -log_sigmoid(BETA * (c - r))),
    "conservative": (
        dict(label_smoothing=0.2),
        lambda c, r: -0.8 * log_sigmoid(BETA * (c - r)) - 0.2 * log_sigmoid(-BETA * (c - r)),
    ),
    "robust": (
        dict(preference_loss="robust", label_smoothing=0.2),
        lambda c, r: (-0.8 * log_sigmoid(BETA * (c - r)) + 0.2 * log_sigmoid(-BETA * (c - r))) / 0.6,
    ),
    "quality": (
        dict(preference_loss_weight=0.0, quality_loss_weight=1.0),
        lambda c, r: -log_sigmoid(BETA * c) - log_sigmoid(-BETA * r),
    ),
}
ON_AVERAGES = {
    "ipo": (dict(preference_loss="ipo"), lambda c, r: (c - r - 1 / (2 * BETA)) ** 2),
    "sigmoid": (dict(length_normalised=True), ON_SUMS["sigmoid"][1]),
}


@pytest.mark.parametrize("name", ON_SUMS)
def test_losses_of_sums(name):
    settings, formula = ON_SUMS[name]
    assert loss_of(reference_policy_kl_penalty=BETA, **settings) == pytest.approx(expected(formula), rel=1e-6)


@pytest.mark.parametrize("name", ON_AVERAGES)
def test_losses_of_averages(name):
    settings, formula = ON_AVERAGES[name]
    assert loss_of(reference_policy_kl_penalty=BETA, **settings) == pytest.approx(expected(formula, True), rel=1e-6)


def test_mpo_is_the_weighted_sum_of_its_terms():
    weights = dict(preference_loss_weight=0.8, quality_loss_weight=0.2, sft_loss_weight=1.0)
    terms = pair_losses(pairs(), PreferenceConfig(**weights))
    assert set(terms) == {"loss", "loss/preference", "loss/quality", "loss/sft"}
    total = 0.8 * terms["loss/preference"] + 0.2 * terms["loss/quality"] + terms["loss/sft"]
    assert torch.allclose(terms["loss"], total, rtol=1e-6)
    assert terms["loss/sft"].tolist() == pytest.approx([2.5, 1.5])  # minus the mean log-probability a token


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("average", [False, True])
def test_a_policy_that_is_its_reference_has_log_2_and_no_reward(smoothing, average):
    settings = PreferenceConfig(label_smoothing=smoothing, length_normalised=average)
    same = equal_to_reference()
    assert pair_losses(same, settings)["loss"].tolist() == pytest.approx([math.log(2)] * 2, abs=1e-6)
    metrics = pair_metrics(same, beta=0.1)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "kl"):
        assert metrics[name].tolist() == [0.0, 0.0], name


def test_metrics():
    metrics = pair_metrics(pairs(), beta=0.1)
    assert metrics["rewards/chosen"].tolist() == pytest.approx([0.05, -0.05])
    assert metrics["rewards/rejected"].tolist() == pytest.approx([-0.225, 0.2])
    assert metrics["rewards/margins"].tolist() == pytest.approx([0.275, -0.25])
    assert metrics["rewards/accuracies"].tolist() == [1.0, 0.0]
    assert metrics["logps/chosen"].tolist() == list(CHOSEN)
    drift = expected(lambda c, r: (math.exp(-c) - 1 + c + math.exp(-r) - 1 + r) / 2, average=True)
    assert metrics["kl"].tolist() == pytest.approx(drift, rel=1e-5)


def test_far_margins_stay_finite():
    far = pairs(chosen=(-1e4, -1.0), rejected=(-1.0, -1e4))
    for settings in (PreferenceConfig(), PreferenceConfig(preference_loss="robust", label_smoothing=0.1)):
        assert torch.isfinite(pair_losses(far, settings)["loss"]).all()
