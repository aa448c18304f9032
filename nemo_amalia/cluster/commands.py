"""`amalia plan` and `amalia dryrun`: their words, and what they print. Megatron is imported where it is needed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nemo_amalia.cluster.known_warnings import silence_known_warnings
from nemo_amalia.cluster.plan.request import check_plannable, checked, model_of, pack_lengths, requested, world_of
from nemo_amalia.cluster.plan.shape import ModelShape, shape_of
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.training.job.console import announce_loading


def plan_command(arguments: argparse.Namespace, ready: Callable[[], object]) -> int:
    """Print the plan; exit code 1 where it does not fit the card.

    ready: makes Megatron ready, seconds of imports; called when there is nothing left to refuse.
    """
    run, world = checked(arguments.overrides, arguments.world_size)
    check_plannable(run)
    packs = _packs(arguments, run)
    announce_loading()
    silence_known_warnings()
    shape = model_of(run, world)
    ready()
    from nemo_amalia.cluster.dryrun.parameters import count_parameters
    from nemo_amalia.cluster.plan.architecture import provider_of
    from nemo_amalia.cluster.plan.plan import make_plan
    from nemo_amalia.cluster.plan.render import page
    from nemo_amalia.cluster.plan.versus_paper import gain_lines

    plan = make_plan(run, shape, world, count_parameters(run, provider_of(run)), packs)
    print(page(plan, shape, packs is not None))
    lines = gain_lines(plan, shape)
    if lines:
        print("\n" + "\n".join(lines))
    return 0 if plan.fits else 1


def search_command(arguments: argparse.Namespace) -> int:
    """Print the layouts that fit. Needs no Megatron."""
    run = requested(arguments.overrides)
    world, packs = world_of(run, arguments.world_size), _packs(arguments, run)
    check_plannable(run)
    from nemo_amalia.cluster.plan.architecture import hf_config
    from nemo_amalia.cluster.plan.search import search, search_table

    print(search_table(search(run, shape_of(hf_config(run)), world, packs)))
    return 0


def _packs(arguments: argparse.Namespace, run: RunConfig):
    return pack_lengths(arguments.packs or (Path(run.data.pack_index) if run.data.pack_index else None))


def dryrun_command(
    run: RunConfig, shape: ModelShape, world: int, ranks: Sequence[int], jobs: int | None, log: Path
) -> int:
    """Run the ranks and print the table; exit code 1 where one failed, its error on top. Megatron is ready by then."""
    from nemo_amalia.cluster.dryrun.run import failures, run_ranks, table
    from nemo_amalia.cluster.plan.architecture import provider_of

    silence_known_warnings()
    results = run_ranks(run, provider_of(run), ranks, world, log, jobs)
    wrong = failures(results)
    if wrong:
        print(wrong, file=sys.stderr)
    print(table(run, shape, world, results))
    return 1 if wrong else 0
