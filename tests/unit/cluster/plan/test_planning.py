"""`amalia plan` without Megatron: what is refused, what is reckoned, and that a layout that cannot fit is named so."""

import re
import time

import pytest
from light_cli import run_light

from nemo_amalia import cli
from nemo_amalia.cluster.dryrun.ranks import distinct_ranks, parse_ranks
from nemo_amalia.cluster.plan.architecture import hf_config
from nemo_amalia.cluster.plan.fits import check_memory
from nemo_amalia.cluster.plan.memory import memory_of
from nemo_amalia.cluster.plan.plan import make_plan
from nemo_amalia.cluster.plan.render import page
from nemo_amalia.cluster.plan.request import check, requested, settled, world_of
from nemo_amalia.cluster.plan.search import search, search_table
from nemo_amalia.cluster.plan.shape import shape_of
from nemo_amalia.cluster.plan.stages import stages_of
from nemo_amalia.cluster.plan.versus_paper import PUBLISHED_HOURS, gain
from nemo_amalia.utils.errors import UserError

PAPER = {
    "alignment": ("stage=alignment", "parallel=gpus8_node4"),
    "sft": ("stage=sft", "parallel=gpus128_node4", "precision=fp8_current"),
    "dpo": ("stage=dpo", "parallel=gpus64_node4", "precision=fp8_current"),
}


@pytest.fixture(scope="module")
def shape():
    return shape_of(hf_config(requested([])))


@pytest.mark.parametrize(
    ("overrides", "world", "says"),
    [
        (["parallel.tensor=3"], 96, r"attention heads.*does not divide"),
        (["parallel.tensor=16"], 128, r"key-value heads.*does not divide"),
        (["parallel=gpus128_node4"], 64, r"made for 64 GPUs"),
        (["parallel.tensor=4"], 126, r"does not divide the world of 126"),
        (["parallel.pipeline=4"], 128, r"42 decoder layers.*choose another"),
        (["parallel.tensor=8", "cluster=marenostrum5"], 128, r"a node of marenostrum5 has 4 GPUs"),
        (["stage.global_batch_size=100"], 128, r"multiple of 128"),
        (["parallel.pipeline=2", "parallel.virtual_pipeline=3", "stage.global_batch_size=192"], 128, r"micro-batches"),
        (["model.architecture=nowhere"], 8, r"no config.json"),
        (["stage.seq_len=1"], 8, r"did you mean stage.seq_length"),
    ],
)
def test_a_bad_layout_is_refused_in_one_line(overrides, world, says, capsys):
    with pytest.raises(UserError, match=says):
        settled(overrides, world)
    assert cli.main(["plan", *overrides, "--world-size", str(world)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_what_cannot_be_planned_is_refused_before_anything_heavy_is_imported():
    paper = ["parallel=gpus128_node8"]
    asked = {
        "parallel=wrong": (["parallel=wrong"], "conf/parallel has gpus128_node4"),
        "own numbers": ([*paper, "cluster=dgx_h100", "parallel.tensor=3"], "does not divide the world of 128 ranks"),
        "the model's sizes": ([*paper, "cluster=dgx_h100", "parallel.pipeline=4"], "the model has 42 decoder layers"),
        "GPUs": ([*paper, "cluster=dgx_h100", "--world-size", "100"], "--world-size 100"),
        "no card": (paper, "add cluster=marenostrum5"),
        "no card, search": (["--search"], "add cluster=marenostrum5"),
        "no steps": ([*paper, "cluster=dgx_h100", "stage.train_steps=null"], "stage.train_steps=N"),
        "no index": ([*paper, "cluster=dgx_h100", "--packs", "nowhere"], "nowhere"),
        "no checkpoint": ([*paper, "cluster=dgx_h100", "model.checkpoint=nowhere"], "nowhere has no hf folder"),
    }
    said = run_light(*(["plan", *words] for words, _ in asked.values()))
    for (name, (_, says)), line in zip(asked.items(), said, strict=True):
        assert line.startswith("error: ") and says in line, (name, line)


def test_ranks_are_named_or_refused():
    run = requested(["parallel=gpus128_node8_pp4"])
    assert distinct_ranks(run, 128) == [0, 31, 32, 63, 64, 95, 96, 127]
    assert parse_ranks("5,127", run, 128) == [5, 127]
    for text, says in (("128", "not in a world of 128"), ("first", "expected a number")):
        with pytest.raises(UserError, match=says):
            parse_ranks(text, run, 128)


def test_a_schedule_holds_as_many_micro_batches_as_megatron_does(shape):
    plain = stages_of(requested(["parallel=gpus128_node8_pp4"]), shape, 128)
    assert [(stage.layers, stage.in_flight) for stage in plain] == [(10, 4), (11, 3), (11, 2), (10, 1)]
    interleaved = stages_of(requested(["parallel=gpus128_node4_pp2_vpp3"]), shape, 128)
    # Warm-up of stage i: 2 (p - i - 1) + (v - 1) p pieces, and the one in work.
    assert [(stage.in_flight, stage.encoded) for stage in interleaved] == [(7, 4), (5, 4)]


def test_a_layout_that_cannot_fit_is_named_with_what_helps(shape):
    run = requested(["parallel.tensor=1", "cluster=marenostrum5"])
    start = time.monotonic()
    with pytest.raises(UserError, match=r"stage 0 needs \d+\.\d GiB a GPU .*larger parallel.tensor.*plan --search"):
        check_memory(run, 128)
    assert time.monotonic() - start < 10
    check_memory(requested(["parallel=gpus128_node4", "cluster=marenostrum5"]), 128)
    check_memory(requested(["parallel.tensor=1"]), 128)  # no cluster, no card


def test_recompute_and_parallelism_take_memory_away(shape):
    def activations(*overrides):
        run = requested(["parallel.tensor=4", "parallel.sequence=true", *overrides])
        return memory_of(run, shape, 128)[0].activations

    plain = activations()
    assert activations("parallel.recompute=full") < 0.5 * plain
    assert activations("parallel.tower_recompute=true") < 0.95 * plain
    assert activations("parallel.context=2") < 0.65 * plain
    assert activations("parallel.sequence=false") > 1.3 * plain
    assert activations("precision=fp8_current") < plain


@pytest.mark.parametrize("stage", PAPER)
def test_the_papers_stages_fit_one_screen_and_stay_below_their_hours(stage, shape):
    run = requested([*PAPER[stage], "cluster=marenostrum5"])
    world = world_of(run, None)
    check(run, shape, world)
    plan = make_plan(run, shape, world)
    text = page(plan, shape)
    lines = text.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 130, text
    assert plan.fits and plan.gpu_hours < PUBLISHED_HOURS[stage]
    assert sum(plan.step.parts.values()) == pytest.approx(plan.step.seconds)
    assert 0.2 < plan.step.mfu < 0.7
    factors = gain(plan, shape)
    assert all(factor >= 0.99 for _, factor in factors) and factors[-1][1] >= max(factor for _, factor in factors[:-1])


def test_the_three_stages_together_take_less_than_a_quarter(shape):
    hours = 0.0
    for overrides in PAPER.values():
        run = requested([*overrides, "cluster=marenostrum5"])
        hours += make_plan(run, shape, world_of(run, None)).gpu_hours
    assert hours < sum(PUBLISHED_HOURS.values()) / 4


def test_search_ranks_layouts_that_fit(shape):
    plans = search(requested(["cluster=marenostrum5"]), shape, 128)
    hours = [plan.gpu_hours for plan in plans]
    assert hours == sorted(hours) and len(plans) > 20
    assert all(plan.fits and plan.run.parallel.tensor <= 4 for plan in plans)
    assert re.search(r"TP\d.*parallel\.tensor=", search_table(plans))
    with pytest.raises(UserError, match="no layout of 1 GPUs fits"):
        search(requested(["cluster=marenostrum5"]), shape, 1)


def test_a_plan_without_a_cluster_says_which_there_are(shape):
    with pytest.raises(UserError, match="cluster=marenostrum5"):
        make_plan(requested([]), shape, 1)
    with pytest.raises(UserError, match="stage.train_steps=N"):
        make_plan(requested(["stage.train_steps=null", "cluster=dgx_h100"]), shape, 1)
