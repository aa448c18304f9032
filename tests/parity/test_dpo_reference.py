"""Reference log-probabilities computed ahead, at several layouts, against a reference model in memory.

The parts are made by the code of `amalia reference` on the fixed pairs. Values differ by the order of fp32 sums alone;
losses agree to 1e-6, as the issue asks.
"""

import pytest
from dpo_cases import FIGURES, PACKS, PAIRS_A_PACK, STEPS
from launcher import launch
from tiny_checkpoint import write_checkpoint
from tiny_megatron import Layout

FINGERPRINT = {"made by": "a test"}
LAYOUTS = {"TP2+SP": Layout(tp=2, sp=True), "PP2": Layout(pp=2), "CP2": Layout(cp=2), "DP2": Layout()}


def fixed_shards(provider):
    """{name: the packs of that name}, as reference_run takes them."""
    from fixed_pairs import PAIRS_A_PACK, SEQ_LENGTH, collated, pairs
    from stream_settings import make_collator

    geometry = provider.image_geometry()
    drawn = pairs(geometry, provider.image_token_id, 260, 8 * PAIRS_A_PACK)
    collate = make_collator(
        seq_length=SEQ_LENGTH,
        pad_token_id=0,
        image_token_id=provider.image_token_id,
        geometry=geometry,
        segment_multiple=4,
    )
    groups = [drawn[start : start + PAIRS_A_PACK] for start in range(0, len(drawn), PAIRS_A_PACK)]
    halves = {f"shard-{n}": groups[4 * n : 4 * n + 4] for n in range(2)}
    return {
        name: (lambda packs=packs: iter([[collated(collate, pack) for pack in packs]]))
        for name, packs in halves.items()
    }


def make_files(checkpoint, folder, layouts):
    """{name: rows of the file, by key} at each layout."""
    from pathlib import Path

    import torch.distributed as dist
    from megatron.core import parallel_state
    from training_runs import dpo_config

    from nemo_amalia.bridge.saved_config import read_provider
    from nemo_amalia.training.reference.file import read_table
    from nemo_amalia.training.reference.run import build_model, join, write_parts

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    tables = {}
    for name, layout in layouts.items():
        run, out = dpo_config(checkpoint, folder, layout=layout), Path(folder) / f"{name}.parquet"
        model, groups = build_model(run, read_provider(checkpoint))
        shards = fixed_shards(groups and model[0].config)
        write_parts(model, groups, shards, out, FINGERPRINT, "again", (0, 1))
        if dist.get_rank() == 0:
            assert join(out, list(shards), FINGERPRINT, "again") == 8 * PAIRS_A_PACK
        dist.barrier()
        tables[name] = {row.pop("key"): row for row in read_table(out, "again")[0].to_pylist()}
        parallel_state.destroy_model_parallel()
    return tables


def train_both(checkpoint, folder, file):
    """Metrics with the file, and with a model in memory."""
    from training_runs import dpo_config, train_fixed

    from nemo_amalia.training import run as module

    module.fingerprint = lambda *_: FINGERPRINT  # the fixed pairs lie in no folder that could be identified
    memory = train_fixed(dpo_config(checkpoint, f"{folder}/memory", steps=STEPS, batch=PACKS))
    run = dpo_config(checkpoint, f"{folder}/file", steps=STEPS, batch=PACKS, reference="precomputed")
    run.stage.reference_file = file
    return train_fixed(run), memory


def train_pp2(checkpoint, folder, file):
    from training_runs import dpo_config, train_fixed

    from nemo_amalia.training import run as module

    module.fingerprint = lambda *_: FINGERPRINT
    options = dict(steps=STEPS, batch=PACKS, reference="precomputed", layout=Layout(pp=2))
    run = dpo_config(checkpoint, f"{folder}/pp2", **options)
    run.stage.reference_file = file
    return train_fixed(run)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("reference"))
    checkpoint = launch(write_checkpoint, 1, {"folder": folder})[0]
    arguments = {"checkpoint": checkpoint, "folder": folder, "layouts": {"TP1": Layout()}}
    return checkpoint, folder, launch(make_files, 1, arguments)[0]["TP1"]


@pytest.fixture(scope="module")
def trained(places):
    checkpoint, folder, _ = places
    return launch(train_both, 1, {"checkpoint": checkpoint, "folder": folder, "file": f"{folder}/TP1.parquet"})[0]


def test_a_file_gives_the_losses_of_a_model_in_memory(trained):
    file, memory = trained
    assert len(file) == len(memory) == STEPS
    for ours, theirs in zip(file, memory, strict=True):
        for name in FIGURES:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-6, abs=1e-6), f"step {ours['step']}: {name}"


def test_every_layout_writes_the_same_file(places):
    checkpoint, folder, want = places
    arguments = {"checkpoint": checkpoint, "folder": folder, "layouts": LAYOUTS}
    for name, rows in launch(make_files, 2, arguments)[0].items():
        assert rows.keys() == want.keys(), name
        for key, row in rows.items():
            assert row == pytest.approx(want[key], rel=1e-6), f"{name}: {key}"


def test_pipeline_stages_train_with_it(places, trained):
    checkpoint, folder, _ = places
    got = launch(train_pp2, 2, {"checkpoint": checkpoint, "folder": folder, "file": f"{folder}/TP1.parquet"})[-1]
    for ours, theirs in zip(got, trained[1], strict=True):
        for name in FIGURES:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=2e-6), f"step {ours['step']}: {name}"
