"""Every layout of conf/parallel is built: the real 9B model on meta, on a rank of each pipeline stage of its world.

The process group is torch's `fake` one; groups, layers and shapes are Megatron's own. Nothing is computed here.
"""

import pytest
from launcher import launch

from nemo_amalia.config.compose import CONF, compose
from nemo_amalia.utils.errors import UserError

PLACES = ["run_dir=runs/x", "model.checkpoint=ckpt", "data.path=data", "precision=bf16"]
CLUSTERS = {"node8": "dgx_h100", "node4": "marenostrum5"}
STAGES = {"gpus8": "alignment", "gpus64": "dpo", "gpus128": "sft"}
LAYOUTS = sorted(path.stem for path in (CONF / "parallel").glob("gpus*.yaml"))
LAYERS = 42


def run_of(layout):
    gpus, node, *_ = layout.split("_")
    return compose([f"stage={STAGES[gpus]}", f"parallel={layout}", f"cluster={CLUSTERS[node]}", *PLACES])


def nine_billion():
    """AMALIA-VL's provider: SigLIP2 so400m, an MLP, EuroLLM-9B's decoder."""
    import torch.nn.functional as F

    from nemo_amalia.model.provider import AmaliaVLModelProvider

    return AmaliaVLModelProvider(
        num_layers=LAYERS, hidden_size=4096, num_attention_heads=32, num_query_groups=8, ffn_hidden_size=12288,
        seq_length=16384, vocab_size=128000, normalization="RMSNorm", gated_linear_unit=True, activation_func=F.silu,
        add_bias_linear=False, hidden_dropout=0.0, attention_dropout=0.0, position_embedding_type="rope",
        share_embeddings_and_output_weights=False, image_token_id=5,
    )  # fmt: skip


def stages(run):
    """Per pipeline stage: layers of its chunks (counted from 1), whether tower and output layer are there, weights."""
    import torch
    import torch.distributed as dist
    from megatron.core import parallel_state as ps
    from megatron.core import tensor_parallel
    from megatron.core.process_groups_config import ProcessGroupCollection
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from nemo_amalia.config.validation.model import check_model_layout
    from nemo_amalia.training.setup.bridge_config import set_model

    p, world = run.parallel, run.parallel.world_size
    found = []
    for stage in range(p.pipeline):
        rank = stage * world // p.pipeline + 1  # Megatron's order: tp, cp, dp, pp
        dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
        ps.initialize_model_parallel(
            p.tensor, p.pipeline, p.virtual_pipeline, context_parallel_size=p.context, create_gloo_process_groups=False
        )
        tensor_parallel.model_parallel_cuda_manual_seed(1)
        provider = nine_billion()
        check_model_layout(run, provider, engine=True)
        set_model(run, provider)
        provider.finalize()
        provider._pg_collection = ProcessGroupCollection.use_mpu_process_groups()
        assert ps.get_pipeline_model_parallel_rank() == stage
        with torch.device("meta"):
            turns = range(p.virtual_pipeline) if p.virtual_pipeline else [None]
            chunks = [provider.provide(vp_stage=turn) for turn in turns]
        layers = [[layer.layer_number for layer in chunk.language_model.decoder.layers] for chunk in chunks]
        found.append(
            dict(
                layers=layers, tower=[hasattr(chunk, "vision_tower") for chunk in chunks],
                output=[hasattr(chunk.language_model, "output_layer") for chunk in chunks],
                decoder=sum(x.numel() for chunk in chunks for x in chunk.language_model.parameters()),
            )
        )  # fmt: skip
        ps.destroy_model_parallel()
        dist.destroy_process_group()
    return found


def overlaps(run):
    """What Bridge makes of the layout's overlap, without Transformer Engine and as if it were there."""
    from nemo_amalia.training.setup import bridge_config as container
    from nemo_amalia.training.setup.bridge_config import data_parallel, optimizer, set_model

    found = {}
    for engine in (True, False):
        provider, adam, ddp = nine_billion(), optimizer(run), data_parallel(run)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(container, "HAVE_TE", engine)
            chosen = container.comm_overlap(run)
        set_model(run, provider)
        chosen.finalize()
        chosen.data_parallel_size = 16
        chosen.setup(provider, adam, ddp)
        found[engine] = dict(
            ddp=(ddp.use_distributed_optimizer, ddp.overlap_grad_reduce, ddp.overlap_param_gather),
            adam=(adam.use_distributed_optimizer, adam.overlap_param_gather), aligned=ddp.align_param_gather,
            p2p=(provider.overlap_p2p_comm, provider.batch_p2p_comm), tensor=provider.tp_comm_overlap,
            recompute=(provider.recompute_granularity, provider.recompute_method, provider.recompute_num_layers),
            tower=provider.tower_recompute,
        )  # fmt: skip
    return found


def build(layouts):
    """In one process: the stages of every layout, and what overlaps."""
    runs = {layout: run_of(layout) for layout in layouts}
    return {layout: stages(run) for layout, run in runs.items()}, {n: overlaps(run) for n, run in runs.items()}


@pytest.fixture(scope="module")
def built():
    return launch(build, 1, {"layouts": LAYOUTS}, timeout=500)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layers_tower_and_output_are_where_they_should_be(built, layout):
    from nemo_amalia.config.validation.model import stage_layers

    run, found = run_of(layout), built[0][layout]
    chunks = run.parallel.virtual_pipeline or 1
    turns = [found[stage]["layers"][turn] for turn in range(chunks) for stage in range(run.parallel.pipeline)]
    assert [number for chunk in turns for number in chunk] == list(range(1, LAYERS + 1))
    assert [sum(map(len, stage["layers"])) for stage in found] == stage_layers(run, LAYERS)
    towers = [has for turn in range(chunks) for has in (stage["tower"][turn] for stage in found)]
    outputs = [has for turn in range(chunks) for has in (stage["output"][turn] for stage in found)]
    assert towers == [True, *[False] * (len(turns) - 1)] and outputs == [*[False] * (len(turns) - 1), True]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stages_and_tensor_ranks_add_up_to_the_decoder(built, layout):
    layer = 4096 * (4096 + 2 * 1024 + 4096 + 3 * 12288)
    split, whole = LAYERS * layer + 2 * 128000 * 4096, (2 * LAYERS + 1) * 4096
    got = sum(stage["decoder"] for stage in built[0][layout])
    assert got == split // run_of(layout).parallel.tensor + whole


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_overlaps(built, layout):
    p, found = run_of(layout).parallel, built[1][layout]
    assert (found[True]["tensor"], found[False]["tensor"]) == (True, False)
    got = found[True]
    assert got["ddp"] == (True, True, True) and got["adam"] == (True, True)
    assert got["aligned"] == (p.virtual_pipeline is not None)
    if p.pipeline > 1:
        assert got["p2p"] == (p.virtual_pipeline is not None, p.virtual_pipeline is None)
    full = ("full", "uniform", 1)
    assert got["recompute"] == {"none": (None,) * 3, "selective": ("selective", None, None), "full": full}[p.recompute]
    assert got["tower"] == p.tower_recompute


def refusals(changes):
    from nemo_amalia.config.validation.model import check_model_layout

    said = []
    for words, fields in changes:
        run, provider = compose([*PLACES, *words]), nine_billion()
        for name, value in fields.items():
            setattr(provider, name, value)
        try:
            check_model_layout(run, provider, engine=True)
            said.append("")
        except UserError as error:
            said.append(str(error))
    return said


def test_models_that_do_not_fit_a_layout():
    fp8 = ["precision=fp8_current"]
    cases = {
        "the model has 8 key-value heads, parallel.tensor is 16": (["parallel.tensor=16"], {}),
        "42 decoder layers, and 4 pipeline stages x virtual_pipeline 1 do not": (["parallel.pipeline=4"], {}),
        "less those of the ends (10 and None) = 32": (["parallel.pipeline=4", "parallel.first_stage_layers=10"], {}),
        "precision.last_layers_bf16 is 3 and the smallest pipeline stage has 2 of the model's": (
            ["parallel.pipeline=2", "parallel.last_stage_layers=2", *fp8, "precision.last_layers_bf16=3"],
            {},
        ),
        "MLP width / parallel.tensor is 3080 and FP8 blockwise takes multiples of 128": (
            ["precision=fp8_blockwise", "parallel.tensor=4"],
            {"ffn_hidden_size": 12320},
        ),
    }  # fmt: skip
    for (wanted, _), said in zip(cases.items(), launch(refusals, 1, {"changes": list(cases.values())})[0], strict=True):
        assert wanted in said and "\n" not in said, said
