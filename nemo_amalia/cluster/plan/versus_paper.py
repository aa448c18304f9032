"""The paper's stages as published against their plans, and what the difference is made of.

Published: AMALIA-VL's model card, H100-hours on MareNostrum 5. What their system lost is not known; what can be said is
the share of the peak that the published hours come to for the same work, and what each of our measures is worth: the
plan without it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from nemo_amalia.cluster.plan.plan import Plan, make_plan
from nemo_amalia.cluster.plan.shape import ModelShape
from nemo_amalia.config.schema import PREFERENCE_STAGE, RunConfig

PUBLISHED_HOURS = {"alignment": 32, "sft": 6144, "dpo": 512}  # 4 h on 8, 96 h on 64, 8 h on 64 H100
# Share of a pack that holds samples where they are packed in the order in which they come (docs/benchmarks.md)
GREEDY_FILL = 0.82


@dataclass(frozen=True)
class Measure:
    """Something that this trainer does. off: changes a run so that it does not, and says whether it did before."""

    name: str
    off: Callable[[RunConfig], bool]


def _bf16(run: RunConfig) -> bool:
    used = run.precision.recipe != "bf16_mixed"
    run.precision.recipe, run.precision.fp8_scaling = "bf16_mixed", None
    run.precision.first_layers_bf16 = run.precision.last_layers_bf16 = 0
    return used


def _replicated_tower(run: RunConfig) -> bool:
    used = run.model.tower_data_parallel and run.parallel.tensor > 1
    run.model.tower_data_parallel = False
    return used


def _no_overlap(run: RunConfig) -> bool:
    p = run.parallel
    used = p.overlap_tensor or p.overlap_grad_reduce or p.overlap_param_gather
    p.overlap_tensor = p.overlap_grad_reduce = p.overlap_param_gather = False
    return used


def _reference_in_memory(run: RunConfig) -> bool:
    used = run.stage.name == PREFERENCE_STAGE and run.stage.reference == "precomputed"
    run.stage.reference = "in_memory"
    return used


def _images_twice(run: RunConfig) -> bool:
    used = run.stage.name == PREFERENCE_STAGE and run.data.share_pair_images
    run.data.share_pair_images = False
    return used


def _recomputed(run: RunConfig) -> bool:
    used = run.parallel.recompute != "full"
    run.parallel.recompute, run.parallel.tower_recompute = "full", True
    return used


MEASURES = (
    Measure("FP8 matrices, not bf16", _bf16),
    Measure("layers kept, not computed again", _recomputed),
    Measure("communication under computation", _no_overlap),
    Measure("tower shared out over TP", _replicated_tower),
    Measure("reference precomputed", _reference_in_memory),
    Measure("a pair's images encoded once", _images_twice),
)


def gain(plan: Plan, shape: ModelShape) -> list[tuple[str, float]]:
    """(measure, GPU-hours of the plan without it / with it), of those that this plan uses; all of them, last."""
    run = copy.deepcopy(plan.run)
    found = []
    for measure in MEASURES:
        alone = copy.deepcopy(plan.run)
        if measure.off(alone):
            found.append((measure.name, make_plan(alone, shape, plan.world_size).gpu_hours / plan.gpu_hours))
            measure.off(run)
    together = make_plan(run, shape, plan.world_size).gpu_hours / plan.gpu_hours
    if plan.run.stage.packing:
        fill = plan.rows.filled / GREEDY_FILL
        found.append((f"packs {plan.rows.filled:.1%} full, not {GREEDY_FILL:.0%}", fill))
        together *= fill
    return [*found, ("all of these", together)]


def gain_lines(plan: Plan, shape: ModelShape) -> list[str]:
    """What to print below a plan of a paper's stage; nothing for another."""
    name = plan.run.stage.name
    if name not in PUBLISHED_HOURS:
        return []
    hours, factors = PUBLISHED_HOURS[name], gain(plan, shape)
    # The published hours for the same work, at this plan's counts: the share of the peak that they come to.
    theirs = plan.step.mfu * plan.gpu_hours / hours
    listed = "; ".join(f"{what} {factor:.2f}" for what, factor in factors)
    return [
        f"published {hours:,} H100-hours, planned {plan.gpu_hours:,.0f} = {plan.gpu_hours / hours:.0%}: the published "
        f"hours are {theirs:.1%} of the peak for this work",
        f"GPU-hours without it / with it: {listed}",
        f"left, of which nothing is known: {hours / plan.gpu_hours / factors[-1][1]:.1f}",
    ]
