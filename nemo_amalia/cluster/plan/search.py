"""`amalia plan --search`: every layout of a number of GPUs that can run and fits the card, the fastest first."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import product

from nemo_amalia.cluster.plan.plan import Plan, make_plan
from nemo_amalia.cluster.plan.render import layout_name
from nemo_amalia.cluster.plan.request import check
from nemo_amalia.cluster.plan.shape import ModelShape
from nemo_amalia.config.schema import ParallelConfig, RunConfig
from nemo_amalia.utils.errors import ConfigError, UserError

SIZES = (1, 2, 4, 8)
VIRTUAL = (None, 2, 3)
# parallel.recompute, tower_recompute
RECOMPUTE = (("none", False), ("none", True), ("full", True))


def layouts(gpus_per_node: int, layers: int) -> Iterator[ParallelConfig]:
    """TP inside a node, PP, CP, VPP and recompute in every combination that Megatron would build."""
    for tensor, pipeline, context, virtual, recompute in product(SIZES, SIZES, (1, 2), VIRTUAL, RECOMPUTE):
        if gpus_per_node and gpus_per_node % tensor or (virtual and pipeline == 1):
            continue
        yield ParallelConfig(
            tensor=tensor,
            pipeline=pipeline,
            context=context,
            virtual_pipeline=virtual,
            sequence=tensor > 1,
            overlap_tensor=tensor > 1,
            overlap_grad_reduce=True,
            overlap_param_gather=True,
            recompute=recompute[0],
            tower_recompute=recompute[1],
            **_ends(layers, pipeline, virtual or 1),
        )


def _ends(layers: int, pipeline: int, chunks: int) -> dict[str, int]:
    """Layers of the first and last stage where they do not divide: fewer than the middle's, as Megatron needs them."""
    if layers % (pipeline * chunks) == 0:
        return {}
    for first in range(layers // pipeline // chunks * chunks, 0, -chunks):
        left = layers - 2 * first
        if pipeline > 2 and left % ((pipeline - 2) * chunks) == 0:
            return {"first_stage_layers": first, "last_stage_layers": first}
    return {}


def search(run: RunConfig, shape: ModelShape, world_size: int, packs=None) -> list[Plan]:
    """Plans of the layouts that fit, the least GPU-hours first. Parameters are reckoned, not counted.

    Raises ConfigError where none fits.
    """
    found = []
    for parallel in layouts(run.cluster.gpus_per_node, shape.decoder.layers):
        candidate = copy.deepcopy(run)
        candidate.parallel = parallel
        try:
            check(candidate, shape, world_size)
            plan = make_plan(candidate, shape, world_size, packs=packs)
        except UserError:
            continue
        if plan.fits:
            found.append(plan)
    if not found:
        raise ConfigError(
            f"no layout of {world_size} GPUs fits {run.cluster.gpu_memory_gb:g} GiB and divides "
            f"stage.global_batch_size {run.stage.global_batch_size}: change one of them, or cluster="
        )
    return sorted(found, key=lambda plan: plan.gpu_hours)


def search_table(plans: list[Plan], most: int = 12) -> str:
    """The best ones, a line each, with the overrides that ask for them."""
    first = plans[0]
    lines = [f"{len(plans)} layouts of {first.world_size} x {first.run.cluster.gpu} fit; the fastest:"]
    lines.append(f"{'layout':<26} {'GPU-hours':>9} {'step s':>7} {'MFU':>6} {'GiB':>6}  overrides")
    for plan in plans[:most]:
        lines.append(f"{layout_name(plan):<26} {plan.gpu_hours:>9,.0f} {plan.step.seconds:>7.2f} "
                     f"{plan.step.mfu:>6.1%} {plan.needs_gib:>6.1f}  {_overrides(plan.run.parallel)}")  # fmt: skip
    return "\n".join(lines)


def _overrides(p: ParallelConfig) -> str:
    plain = ParallelConfig()
    names = ("tensor", "pipeline", "virtual_pipeline", "first_stage_layers", "last_stage_layers", "context",
             "recompute", "tower_recompute")  # fmt: skip
    found = [f"parallel.{name}={getattr(p, name)}" for name in names if getattr(p, name) != getattr(plain, name)]
    return " ".join(found) or "parallel=single"
