"""The stream through Energon: order, resume, errors, and the sums of what was dropped."""

import shutil
import time

import pytest
from chatml import conversation
from streams import BAD, build_loader, equal, keys, take, with_bad

from nemo_amalia.data.faults.board import Fault
from nemo_amalia.data.faults.quarantine import write_faults
from nemo_amalia.data.samples import BadSampleError
from nemo_amalia.data.shards.metadataset import write_blend
from nemo_amalia.data.shards.write import write_shards
from nemo_amalia.utils.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    samples = (conversation(i, images=i % 3, words=1 + i % 7) for i in range(48))
    return write_shards(samples, tmp_path_factory.mktemp("loader") / "data", 16).folder


@pytest.mark.parametrize(
    "settings", [{"num_workers": 0}, {"num_workers": 2}, {"packing": False, "micro_batch_size": 2}]
)
def test_a_restored_loader_continues_with_the_same_batches(load, settings):
    loader = load(checkpoint_every_seconds=0, **settings)
    take(loader, 7)
    state = loader.state()
    expected = take(loader, 6)
    resumed = load(checkpoint_every_seconds=0, **settings)
    resumed.restore(state)
    assert all(equal(a, b) for a, b in zip(expected, take(resumed, 6), strict=True))
    fresh = take(load(**settings), 6)
    assert not all(equal(a, b) for a, b in zip(expected, fresh, strict=True))  # or the above proves nothing


def test_a_state_taken_before_the_first_batch_is_the_beginning(load):
    state = load(num_workers=2).state()
    resumed = load(num_workers=2)
    resumed.restore(state)
    assert keys(take(resumed, 2)) == keys(take(load(num_workers=2), 2))


def test_the_seed_decides_the_order(load):
    first = keys(take(load(seed=1), 4))
    assert keys(take(load(seed=1), 4)) == first != keys(take(load(seed=2), 4))


def test_one_pass_gives_every_sample_once_over_all_ranks(load):
    seen = [key for rank in (0, 1) for key in keys(load(dp_rank=rank, dp_size=2, repeat=False))]
    assert sorted(seen) == sorted(f"shard-{i // 16:06d}.tar/s-{i:05d}" for i in range(48))


def test_global_batches_hold_the_same_samples_when_ranks_times_workers_is_the_same(load):
    one = load(dp_size=1, num_workers=2)
    two = [load(dp_rank=rank, dp_size=2, num_workers=1) for rank in (0, 1)]
    for _ in range(3):
        assert [b.keys for b in take(one, 2)] == [next(loader).keys for loader in two]


def test_without_packing_rows_hold_one_sample_each(load):
    batch = next(load(packing=False, micro_batch_size=3, tiling=False))
    assert batch.tokens.shape == (3, 512) and batch.num_samples == 3 and batch.cu_seqlens is None
    assert (batch.tiles_per_image == 1).all()


def test_packs_decoded_in_the_training_process_are_the_same(load):
    # The way of decode_device="mixed", with the CPU decoder: workers hand over undecoded packs.
    loader = load(num_workers=2)
    loader.task_encoder.decode_in_worker = False
    assert all(equal(a, b) for a, b in zip(take(loader, 3), take(load(num_workers=2), 3), strict=True))


def test_a_blend_draws_from_all_folders(load, folder, tmp_path):
    other = write_shards((conversation(i) | {"key": f"o-{i}"} for i in range(8)), tmp_path / "o").folder
    seen = keys(take(load([(folder, 1), (other, 3)]), 12))
    share = sum("/o-" in key for key in seen) / len(seen)
    assert 0.5 < share < 1.0  # 0.75 expected of about 50 draws


@pytest.mark.parametrize("workers", [0, 2])
def test_what_goes_in_comes_out_or_is_counted(load, tmp_path, workers):
    path = with_bad(BAD, tmp_path)
    loader = load(path, num_workers=workers, on_bad_sample="drop", repeat=False)
    out = keys(loader)
    expected = {reason: 1 for reason in BAD} | {"image": 2}
    assert loader.faults.dropped() == expected
    assert loader.faults.totals()["samples_in"] == 20
    assert loader.faults.totals()["samples_out"] == len(out) == len(set(out)) == 20 - sum(expected.values())
    assert {fault.reason for fault in loader.faults.log()} == set(BAD)
    assert not {fault.key for fault in loader.faults.log()} & set(out)


@pytest.mark.parametrize(("workers", "reason"), [(0, "placeholders"), (2, "too_long"), (0, "no_loss_token")])
def test_a_bad_sample_stops_the_run_with_one_line(load, tmp_path, workers, reason):
    path = with_bad([reason], tmp_path)
    loader = load(path, num_workers=workers, repeat=False)
    started = time.monotonic()
    with pytest.raises(BadSampleError, match=r"sample shard-000000.tar/s-00000 has .*bad/shard-000000.tar\)$") as info:
        list(loader)
    assert "\n" not in str(info.value)
    assert time.monotonic() - started < 60  # not after 100 samples skipped, and nobody hangs


def test_a_fault_of_ours_is_not_skipped(load):
    loader = load()
    loader.task_encoder.encoder = lambda sample: 1 / 0
    with pytest.raises(RuntimeError, match="the data path failed on sample shard-.*"):
        next(loader)


@pytest.fixture(scope="module")
def state(folder, tmp_path_factory, chat, geometry):
    """The position of a loader of two workers that has given a batch."""
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "num_workers": 2, "packing_buffer_size": 12}
    settings |= {"shuffle_buffer_size": 8, "max_samples_per_sequence": 8}
    loader = build_loader(folder, geometry=geometry, chat=chat, seq_length=512, **settings)
    next(loader)
    yield loader.state()
    loader.close()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_workers": 1}, "num_workers was 2 and is 1"),
        ({"num_workers": 0}, "num_workers was 2 and is 0"),
        ({"dp_size": 2}, "dp_size was 1 and is 2"),
        ({"dp_size": 2, "dp_rank": 1}, "dp_rank was 0 and is 1; dp_size was 1 and is 2"),
        ({"seed": 3}, "seed was 0 and is 3"),
        ({"seq_length": 640}, "seq_length was 512 and is 640"),
        ({"packing_algorithm": "balanced"}, "packing_algorithm was 'best_fit_decreasing' and is 'balanced'"),
        ({"packing_buffer_size": 13}, "packing_buffer_size was 12 and is 13"),
        ({"shuffle_buffer_size": 9}, "shuffle_buffer_size was 8 and is 9"),
        ({"tiling": False}, "tiling was True and is False"),
    ],
)
def test_a_state_of_other_settings_is_refused(load, state, changes, text):
    with pytest.raises(UserError, match=text) as info:
        load(**({"num_workers": 2} | changes)).restore(state)
    assert "\n" not in str(info.value) and "data.start_anew_at=" in str(info.value)
    load(num_workers=2).restore(state)  # and what did not change is no reason


def test_a_state_of_other_data_is_refused(load, state, folder, tmp_path):
    other = write_shards((conversation(i, images=i % 3, words=1 + i % 7) for i in range(48)), tmp_path / "o", 16).folder
    with pytest.raises(UserError, match="data was '[-0-9a-f]{36}' and is '[-0-9a-f]{36}'"):
        load(other, num_workers=2).restore(state)
    load(shutil.copytree(folder, tmp_path / "moved"), num_workers=2).restore(state)  # the same index, elsewhere


def test_a_mix_whose_folder_was_prepared_again_is_refused(load, folder, tmp_path):
    own = shutil.copytree(folder, tmp_path / "own")
    mix = write_blend([(own, 1.0)], tmp_path / "mix.yaml")
    state = load(mix).state()
    load(mix).restore(state)
    (own / ".nv-meta" / "index.uuid").write_text("another")
    with pytest.raises(UserError, match=r"data was '.*\.\.\. \([0-9a-f]{8}\) and is ") as info:
        load(mix).restore(state)
    assert len(str(info.value)) < 500 and "\n" not in str(info.value)


def test_a_state_with_another_quarantine_is_refused(load, state, folder, tmp_path):
    file = tmp_path / "0.jsonl"
    with open(file, "w") as out:
        write_faults(out, [Fault("shard-000000.tar/s-00001", "image", "", str(folder), "shard-000000.tar")])
    with pytest.raises(UserError, match="quarantine was None and is '[0-9a-f]{16}'"):
        load(num_workers=2, quarantine=str(file)).restore(state)


def test_a_state_is_restored_before_the_first_batch_or_not_at_all(load):
    loader = load()
    next(loader)
    with pytest.raises(UserError, match="has already given batches"):
        loader.restore(loader.state())
    for other in (1, "energon 1", None):
        with pytest.raises(UserError, match=f"has format {other!r}, expected 'energon 2': begin the data") as info:
            load().restore({"version": other})
        assert "data.start_anew_at=STEP" in str(info.value) and "\n" not in str(info.value)


def test_impossible_settings_are_refused(load):
    with pytest.raises(UserError, match="dp_rank is 2 of dp_size 2"):
        load(dp_rank=2, dp_size=2)
    with pytest.raises(UserError, match="on_bad_sample is 'skip'"):
        load(on_bad_sample="skip")
    with pytest.raises(UserError, match="micro_batch_size is 4 with packing"):
        load(micro_batch_size=4)
