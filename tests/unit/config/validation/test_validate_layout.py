"""Layouts of conf/ pass with the stage and the cluster that they are for; what cannot run is refused in one line."""

import copy
import functools

import pytest

from nemo_amalia.config.compose import CONF, compose
from nemo_amalia.config.derived import model_ranks, row_multiple
from nemo_amalia.config.validation.layout import validate_layout
from nemo_amalia.utils.errors import UserError

PLACES = ["run_dir=runs/x", "model.checkpoint=ckpt", "data.path=data"]
CLUSTERS = {"node8": "dgx_h100", "node4": "marenostrum5"}
STAGES = {"gpus8": "alignment", "gpus64": "dpo", "gpus128": "sft"}
LAYOUTS = sorted(path.stem for path in (CONF / "parallel").glob("gpus*.yaml"))


@functools.cache
def composed(*words):
    return compose([*words, *PLACES])


def of_name(layout):
    """The run that a layout's name says: GPUs, node."""
    gpus, node, *_ = layout.split("_")
    return copy.deepcopy(composed(f"stage={STAGES[gpus]}", f"parallel={layout}", f"cluster={CLUSTERS[node]}"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_conf_run_where_their_names_say(layout):
    run = of_name(layout)
    world = int(layout.split("_")[0].removeprefix("gpus"))
    assert run.parallel.world_size == world and run.cluster.gpus_per_node == int(layout.split("_")[1][-1])
    validate_layout(run, world)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_papers_lengths_are_whole_blocks_of_every_precision(layout):
    run = of_name(layout)
    for precision in ("fp8_current", "fp8_delayed", "fp8_blockwise", "mxfp8"):
        run.precision = composed(f"precision={precision}").precision
        assert run.stage.seq_length % row_multiple(run) == 0


def test_each_size_of_the_paper_has_a_layout_for_both_nodes():
    assert {f"{gpus}_{node}" for gpus in STAGES for node in CLUSTERS} <= set(LAYOUTS)


def test_every_layout_keeps_a_replica_of_tp_inside_a_node_and_hides_its_communication():
    for layout in LAYOUTS:
        run = of_name(layout)
        assert run.cluster.gpus_per_node % run.parallel.tensor == 0
        assert run.parallel.overlap_grad_reduce and run.parallel.overlap_param_gather and run.parallel.overlap_tensor


@pytest.fixture
def run():
    return of_name("gpus128_node8_pp4_vpp2")


def refused(run, said, world=128, **changes):
    changed = copy.deepcopy(run)
    for key, value in changes.items():
        part, _, name = key.partition("__")
        setattr(getattr(changed, part), name, value)
    with pytest.raises(UserError) as caught:
        validate_layout(changed, world)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_ranks_and_nodes(run):
    assert model_ranks(run) == 8
    refused(run, "the layout is for parallel.world_size 128 and 64 ranks run: choose another parallel=", 64)
    refused(run, "does not divide the world of 12 ranks", 12, parallel__world_size=None)
    refused(run, "TP must stay inside a node; choose a divisor of 4", cluster__gpus_per_node=4, parallel__tensor=8)
    refused(
        run, "100 ranks do not fill nodes of 8 GPUs (dgx_h100)", 100,
        parallel__world_size=100, parallel__pipeline=1, stage__global_batch_size=50,
    )  # fmt: skip


def test_batch_and_tokens(run):
    refused(run, "stage.global_batch_size 100 is not a multiple of micro_batch_size x", stage__global_batch_size=100)
    said = (
        "stage.seq_length 16380 does not cut into 256 parts (2 x context, times tensor under sequence parallelism, in "
    )
    said += "whole blocks of FP8 blockwise): choose a multiple of 256, as 16384"
    run.precision = composed("precision=fp8_blockwise").precision
    refused(run, said, stage__seq_length=16380)


def test_pipelines(run):
    refused(run, "a step has 1 micro-batches a rank and parallel.virtual_pipeline needs a", stage__global_batch_size=16)
    said = "parallel.first_stage_layers is 9: expected a multiple of parallel.virtual_pipeline 2"
    refused(run, said, parallel__first_stage_layers=9)
    one = dict(parallel__pipeline=1, parallel__virtual_pipeline=None)
    refused(run, "parallel.first_stage_layers is 10 and parallel.pipeline is 1: set it to null", **one)
    refused(run, "parallel.virtual_pipeline is 2: it needs parallel.pipeline > 1", parallel__pipeline=1)


def test_overlap(run):
    blockwise = copy.deepcopy(run)
    blockwise.precision = composed("precision=fp8_blockwise").precision
    refused(blockwise, "userbuffers cannot gather its blocks; set parallel.overlap_tensor=false")
    blockwise.parallel.overlap_tensor = False
    validate_layout(blockwise, 128)
    refused(run, "parallel.overlap_tensor=true needs parallel.sequence=true", parallel__sequence=False)
    said = "needs parallel.distributed_optimizer=true and parallel.overlap_grad_reduce=true"
    refused(run, said, parallel__distributed_optimizer=False)
    refused(run, said, parallel__overlap_grad_reduce=False)


def test_a_rank_without_a_tile():
    run = of_name("gpus8_node4")
    said = "a micro-batch has 2 thumbnails and parallel.tensor is 4, so 2 of its ranks would encode none: set "
    refused(run, said + "stage.micro_batch_size=4", 8, stage__micro_batch_size=2)
    run.model.tower_data_parallel, run.stage.micro_batch_size = False, 2
    validate_layout(run, 8)
