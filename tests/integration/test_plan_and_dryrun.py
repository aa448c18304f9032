"""`amalia plan` and `amalia dryrun` against each other, and both against ranks that really are."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launcher import launch

from nemo_amalia.training.job.console import LOADING

LAYOUTS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "parallel").glob("gpus*.yaml"))
STAGE_OF_WORLD = {8: "alignment", 64: "dpo", 128: "sft"}
# What a plan leaves out: casts and temporaries that come and go beside what is kept.
ACTIVATIONS_WITHIN = 0.10


def dry(overrides: list[str], ranks: str, jobs: int = 2) -> list[dict]:
    """In a process with Megatron loaded: each rank of a dry run beside its stage of the plan."""
    import tempfile

    from nemo_amalia.cluster.dryrun.parameters import count_parameters
    from nemo_amalia.cluster.dryrun.ranks import parse_ranks
    from nemo_amalia.cluster.dryrun.run import failures, run_ranks
    from nemo_amalia.cluster.plan.architecture import provider_of
    from nemo_amalia.cluster.plan.memory import memory_of
    from nemo_amalia.cluster.plan.request import settled

    run, shape, world = settled(overrides, None)
    provider = provider_of(run)
    planned = memory_of(run, shape, world, count_parameters(run, provider))
    log = Path(tempfile.mkdtemp()) / "log"
    results = run_ranks(run, provider, parse_ranks(ranks, run, world), world, log, jobs)
    assert not failures(results), failures(results)
    return [
        {
            "rank": result.rank,
            "parameters": (result.parameters, planned[result.coordinates["pp"]].parameters),
            "activations": (result.activations, planned[result.coordinates["pp"]].activations),
            "held": (
                result.weights + result.gradients + result.optimizer,
                planned[result.coordinates["pp"]].total
                - planned[result.coordinates["pp"]].activations
                - planned[result.coordinates["pp"]].copies,
            ),
        }
        for result in results
    ]


def agree(found: list[dict]) -> None:
    for rank in found:
        assert rank["parameters"][0] == rank["parameters"][1], rank
        assert rank["activations"][1] == pytest.approx(rank["activations"][0], rel=ACTIVATIONS_WITHIN), rank
        # Megatron pads its buffers, and a DP rank's shard is a part of a bucket: under 3 % of what is held.
        assert rank["held"][1] == pytest.approx(rank["held"][0], rel=0.03), rank


@pytest.mark.parametrize(
    ("overrides", "rank"),
    [
        (["stage=sft", "parallel=gpus128_node4"], "127"),
        (["stage=dpo", "parallel=gpus128_node8_pp4"], "96"),
        (["stage=alignment", "parallel=gpus8_node8"], "0"),
    ],
)
def test_plan_and_dry_run_agree(overrides, rank):
    (found,) = launch(dry, 1, {"overrides": overrides, "ranks": rank}, timeout=400)
    agree(found)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_runs_and_agrees(layout):
    world = int(layout.removeprefix("gpus").partition("_")[0])
    overrides = [f"stage={STAGE_OF_WORLD[world]}", f"parallel={layout}"]
    (found,) = launch(dry, 1, {"overrides": overrides, "ranks": "all-distinct"}, timeout=580)
    agree(found)


def bounded(overrides: list[str]) -> tuple[float, float]:
    """(seconds of work a core of two, GB of the largest process) of a dry run of all distinct ranks.

    Work and not waiting: the bound is for a machine that does nothing else.
    """
    before = time.process_time()
    dry(overrides, "all-distinct")
    ranks = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = time.process_time() - before + ranks.ru_utime + ranks.ru_stime
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return worked / 2, largest / 1e6


@pytest.mark.slow
def test_a_job_of_128_is_dry_run_in_3_minutes_and_6_gb():
    ((seconds, gigabytes),) = launch(bounded, 1, {"overrides": ["stage=sft", "parallel=gpus128_node4"]}, timeout=400)
    assert seconds < 180 and 2 * gigabytes < 6  # two processes at a time


@pytest.mark.parametrize(
    ("command", "begins"), [(["plan"], "stage sft: 128 x H100"), (["dryrun", "--rank", "0"], " rank ")]
)
def test_the_page_comes_alone_after_a_line_that_says_what_is_waited_for(command, begins):
    paper = ["stage=sft", "parallel=gpus128_node8", "cluster=dgx_h100"]
    words = [sys.executable, "-m", "nemo_amalia.cli", *command, *paper]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.startswith(begins)
    assert done.stderr.splitlines() == [LOADING]


def wrong_width(overrides: list[str]) -> tuple[int, str]:
    """A dry run whose model breaks inside: the tower's features do not fit the connector."""
    import tempfile

    from nemo_amalia.cluster.dryrun.run import failures, run_ranks, table
    from nemo_amalia.cluster.plan.architecture import provider_of
    from nemo_amalia.cluster.plan.request import settled
    from nemo_amalia.model import connectors

    class Broken(connectors.MLPConnector):
        def __init__(self, config, vision_hidden, hidden, side):
            super().__init__(config, vision_hidden + 1, hidden, side)

    connectors.CONNECTORS["mlp"] = Broken
    run, shape, world = settled(overrides, None)
    results = run_ranks(run, provider_of(run), [0, 127], world, Path(tempfile.mkdtemp()) / "log", 2)
    return failures(results), table(run, shape, world, results)


def test_a_shape_error_of_a_rank_comes_out_on_top():
    overrides = ["stage=sft", "parallel=gpus128_node4", "parallel.recompute=full"]
    ((wrong, table),) = launch(wrong_width, 1, {"overrides": overrides}, timeout=400)
    assert wrong.startswith("error: rank 0, 127: ") and "1153" in wrong.splitlines()[0]
    assert "Traceback" in wrong and table.count("failed:") == 2


def real_parameters(folder: str, overrides: list[str]) -> tuple[int, int]:
    """(parameters, trainable ones) of this rank of a job that really runs on Gloo."""
    import torch.distributed as dist

    from nemo_amalia.cluster.plan.architecture import provider_of
    from nemo_amalia.cluster.plan.request import requested
    from nemo_amalia.training.setup.bridge_config import set_model

    run = requested([f"model.architecture={folder}", *overrides])
    model = provider_of(run)
    set_model(run, model)
    dist.init_process_group("gloo")
    model.initialize_model_parallel(seed=0)
    model.finalize()
    parts = model.provide_distributed_model(wrap_with_ddp=False)
    sizes = [(p.numel(), p.requires_grad) for part in parts for p in part.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


def fake_parameters(folder: str, overrides: list[str], world: int) -> list[tuple[int, int, float]]:
    """The same of a dry run, and the plan's number, of every rank."""
    import copy

    from nemo_amalia.cluster.dryrun.rank_step import run_rank
    from nemo_amalia.cluster.plan.architecture import hf_config, provider_of
    from nemo_amalia.cluster.plan.memory import memory_of
    from nemo_amalia.cluster.plan.request import requested
    from nemo_amalia.cluster.plan.shape import shape_of

    run = requested([f"model.architecture={folder}", *overrides])
    planned = memory_of(run, shape_of(hf_config(run)), world)
    found = []
    for rank in range(world):
        report = run_rank(run, copy.deepcopy(provider_of(run)), rank, world)
        found.append((report.parameters, report.trainable, planned[report.coordinates["pp"]].parameters))
    return found


@pytest.mark.parametrize("trainable", ["[tower,connector,decoder]", "[connector]"])
def test_parameters_are_those_of_ranks_that_run(tmp_path, trainable):
    import tiny_hf

    tiny_hf.llava_config().save_pretrained(tmp_path)
    overrides = ["stage=sft", "parallel.tensor=2", "parallel.pipeline=2", "parallel.sequence=true",
                 "parallel.first_stage_layers=1", "stage.seq_length=1024", "stage.global_batch_size=4",
                 "stage.learning_rates.connector=1e-3", f"stage.trainable={trainable}"]  # fmt: skip
    arguments = {"folder": str(tmp_path), "overrides": overrides}
    real = launch(real_parameters, 4, arguments)
    (dry_run,) = launch(fake_parameters, 1, {**arguments, "world": 4})
    assert [found[:2] for found in dry_run] == real
    assert [planned for *_, planned in dry_run] == [total for total, _ in real]
