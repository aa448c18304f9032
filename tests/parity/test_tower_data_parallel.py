"""Losses, gradients and norms are the same however tiles, tensors, tokens and layers are shared out.

Every case is one step of Megatron's own schedule on two Gloo ranks, against tensor-parallel size 1 with all else equal.
fp32 sums in another order differ in the 7th digit; the bounds are 1e-5 of a gradient's largest entry and 1e-6 of loss
and norm. A gradient counted twice, or a part left out, is off by tens of percent.
"""

import pytest
from launcher import launch

LAYOUT = ("tp", "pp", "cp", "sp", "tower_data_parallel", "tower_recompute")
ALL = ["tower", "connector", "decoder"]
# layout changes, and what the batch is like
CASES = {
    "tiles shared": dict(tp=2),
    "tiles replicated": dict(tp=2, tower_data_parallel=False),
    "shared, sequence parallel": dict(tp=2, sp=True),
    "replicated, sequence parallel": dict(tp=2, sp=True, tower_data_parallel=False),
    "shared, sequence parallel, packed": dict(tp=2, sp=True, packed=True),
    "context parallel": dict(cp=2),
    "context parallel, packed": dict(cp=2, packed=True),
    "pipeline": dict(pp=2),
    "pipeline, packed": dict(pp=2, packed=True),
    "only the connector": dict(tp=2, sp=True, trainable=["connector"]),
    "only the connector, pipeline": dict(pp=2, trainable=["connector"]),
    "connector frozen": dict(tp=2, trainable=["tower", "decoder"]),
    "tower frozen": dict(tp=2, sp=True, trainable=["connector", "decoder"]),
    "a micro-batch without images": dict(tp=2, sp=True, empty=True),
    "fewer tiles than ranks, no tiling": dict(tp=2, tiling=False, sizes=((100, 100),)),
    "tower recomputed": dict(tp=2, tower_recompute=True),
    "q-former": dict(tp=2, sp=True, connector="qformer"),
    "pixel shuffle": dict(tp=2, connector="pixel_shuffle_mlp"),
}


def _step(tp=1, pp=1, cp=1, sp=False, packed=False, empty=False, sizes=((100, 100), (31, 90)), connector="mlp", **more):
    from tiny_model import ConnectorConfig, make_batch, make_provider, run_step

    provider = make_provider(
        tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp, context_parallel_size=cp, sequence_parallel=sp,
        connector=ConnectorConfig(connector, num_queries=4, num_heads=4), **more,
    )  # fmt: skip
    batches = [make_batch(provider, sizes, packed=packed)]
    batches += [make_batch(provider, (), seed=4, packed=packed)] if empty else []
    return run_step(provider, batches)


def compare_all(cases: dict) -> dict:
    """In each rank: the case against TP1 on the same world. Returns the largest relative differences by case."""
    import torch.distributed as dist
    from tiny_model import piece_of

    dist.init_process_group("gloo")
    results, references = {}, {}
    for name, case in cases.items():
        alone = {option: value for option, value in case.items() if option not in LAYOUT}
        key = repr(sorted(alone.items()))
        if key not in references:
            references[key] = _step(**alone)  # two data-parallel ranks with the same batch: the same mean
        want, got = references[key], _step(**case)
        rank = dist.get_rank() if case.get("tp", 1) == 2 else 0
        worst = {}
        for parameter, gradient in got.gradients.items():
            whole = piece_of(parameter, want.gradients[parameter], gradient, rank)
            worst[parameter] = float((whole - gradient).abs().max() / want.gradients[parameter].abs().max())
        results[name] = dict(
            loss=abs(got.loss - want.loss) / want.loss, norm=abs(got.norm - want.norm) / want.norm,
            gradient=max(worst.values(), default=0.0), where=max(worst, key=worst.get, default=""),
            trained=sorted(got.gradients), reference=sorted(want.gradients),
            still=[p for p, g in got.gradients.items() if not g.abs().max() > 0],
        )  # fmt: skip
    return results


@pytest.fixture(scope="module")
def results():
    return launch(compare_all, nproc=2, arguments={"cases": CASES}, timeout=400)


@pytest.mark.parametrize("case", CASES)
def test_same_as_one_rank(results, case):
    for rank in results:
        found = rank[case]
        assert found["loss"] < 1e-6 and found["norm"] < 1e-6, found
        assert found["gradient"] < 1e-5, found
        assert found["still"] == [], "every trained parameter has a gradient"


@pytest.mark.parametrize("case", CASES)
def test_trains_what_it_says(results, case):
    parts = {"tower": "vision_tower.", "connector": ("connector.", "image_newline"), "decoder": "language_model."}
    trainable = CASES[case].get("trainable", ALL)
    for rank in results:
        trained = rank[case]["trained"]
        assert all(any(name.startswith(parts[part]) for part in trainable) for name in trained)
        if CASES[case].get("pp", 1) == 1:
            assert trained == rank[case]["reference"]


def save_and_load(folder: str) -> dict:
    """Saves at TP2, loads at TP1 into other weights. Returns whether every tensor came back, and the replica ids."""
    import torch
    import torch.distributed as dist
    from megatron.core import dist_checkpointing
    from megatron.core import parallel_state as ps
    from megatron.core.dist_checkpointing import ShardedTensor
    from tiny_model import build, make_provider

    dist.init_process_group("gloo")
    model = build(make_provider(tensor_model_parallel_size=2)).module
    state = model.sharded_state_dict()
    tower = [entry for name, entry in state.items() if name.startswith("vision_tower.")]
    owners = {entry.key: entry.replica_id for entry in tower if isinstance(entry, ShardedTensor)}
    dist_checkpointing.save(state, folder)
    ps.destroy_model_parallel()
    fresh = build(make_provider(tensor_model_parallel_size=1)).module
    want = {name: p.detach().clone() for name, p in fresh.named_parameters()}  # drawn by name: what was saved
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    fresh.load_state_dict(dist_checkpointing.load(fresh.sharded_state_dict(), folder), strict=False)
    unequal = [name for name, p in fresh.named_parameters() if not torch.equal(p, want[name])]
    return dict(unequal=unequal, owners=sorted(set(owners.values())), tower=len(owners))


def test_distributed_checkpoint_of_replicas(tmp_path):
    ranks = launch(save_and_load, nproc=2, arguments={"folder": str(tmp_path)})
    for rank, found in enumerate(ranks):
        assert found["tower"] > 10 and found["unequal"] == []
        assert {owner[1] for owner in found["owners"]} == {rank}, "only TP rank 0 is the main replica"


def count_flops(batches: dict) -> dict:
    """In each rank: FLOPs of encoding the images of each batch, forward and backward, shared and replicated."""
    import torch.distributed as dist
    from megatron.core import parallel_state as ps
    from tiny_model import build, make_batch, make_provider
    from torch.utils.flop_counter import FlopCounterMode

    dist.init_process_group("gloo")
    found = {}
    for name, sizes in batches.items():
        for shared in (True, False):
            provider = make_provider(tensor_model_parallel_size=2, tower_data_parallel=shared)
            model, pixels = build(provider).module, make_batch(provider, sizes)["pixel_values"]
            counter = FlopCounterMode(display=False)
            with counter:
                model.encode(pixels).sum().backward()
            parts = counter.get_flop_counts()["Global"]
            found[name, shared] = (len(pixels), sum(parts.values()), sorted(str(part) for part in parts))
            ps.destroy_model_parallel()
    return found


def test_a_rank_computes_its_share_of_the_tower():
    """Counted by torch on real ranks: 1 / TP of the replicated FLOPs, or of the next even number of tiles."""
    batches = {"even": ((31, 90), (31, 90)), "odd": ((100, 100), (31, 90))}
    for found in launch(count_flops, nproc=2, arguments={"batches": batches}):
        (tiles, mine, kinds), (_, all_of_them, _) = found["even", True], found["even", False]
        assert tiles % 2 == 0 and 2 * mine == all_of_them > 0
        assert any("convolution" in kind for kind in kinds) and any("mm" in kind for kind in kinds)
        (tiles, mine, _), (_, all_of_them, _) = found["odd", True], found["odd", False]
        assert tiles % 2 == 1 and mine * tiles == all_of_them * (tiles + 1) // 2
