"""`amalia plan` and `amalia dryrun`: their words, and what they print. Megatron is imported where it is needed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nemo_amalia.cluster.architecture import hf_config, provider_of
from nemo_amalia.cluster.request import check, pack_lengths, requested, world_of
from nemo_amalia.cluster.shape import shape_of


def plan_command(arguments: argparse.Namespace) -> int:
    """Print the plan; exit code 1 where it does not fit the card."""
    from nemo_amalia.cluster.gain import gain_lines
    from nemo_amalia.cluster.parameters import count_parameters
    from nemo_amalia.cluster.plan import make_plan
    from nemo_amalia.cluster.render import page
    from nemo_amalia.cluster.search import search, search_table

    run = requested(arguments.overrides)
    shape, world = shape_of(hf_config(run)), world_of(run, arguments.world_size)
    packs = pack_lengths(arguments.packs or (Path(run.data.pack_index) if run.data.pack_index else None))
    if arguments.search:
        print(search_table(search(run, shape, world, packs)))
        return 0
    check(run, shape, world)
    own = count_parameters(run, provider_of(run))
    plan = make_plan(run, shape, world, own, packs)
    print(page(plan, shape, packs is not None))
    lines = gain_lines(plan, shape)
    if lines:
        print("\n" + "\n".join(lines))
    return 0 if plan.fits else 1


def dryrun_command(arguments: argparse.Namespace, log: Path) -> int:
    """Run the ranks and print the table; exit code 1 where one failed, its error on top."""
    import logging

    from nemo_amalia.cluster.dryrun import failures, run_ranks, table
    from nemo_amalia.cluster.ranks import parse_ranks

    logging.disable(logging.CRITICAL)
    run = requested(arguments.overrides)
    shape, world = shape_of(hf_config(run)), world_of(run, arguments.world_size)
    check(run, shape, world)
    ranks = parse_ranks(arguments.rank, run, world)
    results = run_ranks(run, provider_of(run), ranks, world, log, arguments.jobs)
    wrong = failures(results)
    if wrong:
        print(wrong, file=sys.stderr)
    print(table(run, shape, world, results))
    return 1 if wrong else 0
