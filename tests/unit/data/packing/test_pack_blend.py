"""An index over a mix: exact epochs of every source, the same batches at any layout, what is refused or left out."""

import json
import os
import shutil
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from chatml import conversation
from streams import BATCH, CAPACITY, build_index_loader, build_loader, global_batches, group, make_index, take

from nemo_amalia.cli import main
from nemo_amalia.data.faults.board import Fault
from nemo_amalia.data.faults.quarantine import write_faults
from nemo_amalia.data.packing.book import Book
from nemo_amalia.data.packing.index import data_identity, read_head, read_index
from nemo_amalia.data.packing.interleave import epoch_rows, planned, separate
from nemo_amalia.data.packing.measure import ShardLengths
from nemo_amalia.data.packing.windows import WindowPacker
from nemo_amalia.data.samples import BadSampleError
from nemo_amalia.data.shards.metadataset import read_sources, write_blend, write_epochized
from nemo_amalia.data.shards.write import write_shards
from nemo_amalia.utils.errors import UserError

#: source -> (samples, repetitions)
MIX = {"ant": (30, 1), "bee": (17, 2.5), "cat": (23, 0.3)}
EPOCH = {"ant": 30, "bee": 42, "cat": 6}  # floor(samples x repetitions)


def shards(folder, name, number, images=None):
    samples = (conversation(i, i % 2 if images is None else images, 1 + i % 7) for i in range(number))
    return write_shards(
        (sample | {"key": f"{name}-{sample['key'][2:]}"} for sample in samples), folder / name, 8
    ).folder


def write_mix(folder, entries, name="mix.yaml"):
    """entries: as blend_epochized has them."""
    content = {"__module__": "megatron.energon", "__class__": "MetadatasetV2"}
    (folder / name).write_text(json.dumps(content | {"splits": {"train": {"blend_epochized": entries}}}))
    return folder / name


@pytest.fixture(scope="module")
def root(tmp_path_factory, assets):
    folder = tmp_path_factory.mktemp("blend")
    for name, (number, _) in MIX.items():
        shards(folder, name, number)
    write_mix(folder, [{"path": name, "repetitions": repeat} for name, (_, repeat) in MIX.items()])  # relative paths
    make_index(folder / "mix.yaml", assets, folder / "mix.packs", seq_length=CAPACITY, window=25)
    return folder


@pytest.fixture
def load(root, chat, geometry):
    opened = []

    def build(path=root / "mix.yaml", index=root / "mix.packs", build=build_index_loader, **changes):
        settings = {"geometry": geometry, "chat": chat, "seq_length": CAPACITY, "num_workers": 0}
        settings |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} | changes
        opened.append(build(*([index, path] if build is build_index_loader else [path]), **settings))
        return opened[-1]

    yield build
    for loader in opened:
        loader.close()


def names(batches):
    return [key.rpartition("/")[2] for batch in batches for key in batch.keys]


def of_source(found):
    return dict(Counter(key[:3] for key in found))


def test_an_epoch_holds_exactly_the_planned_samples_of_every_source(load, root):
    seen = names(load(repeat=False))
    assert of_source(seen) == EPOCH
    times = Counter(seen)
    for source, (number, repeat) in MIX.items():
        own = [times[f"{source}-{i:05d}"] for i in range(number)]
        assert sum(own) == EPOCH[source] and set(own) <= {int(repeat), int(np.ceil(repeat))}
    totals, head = read_head(root / "mix.packs")["totals"], read_head(root / "mix.packs")["data"]["sources"]
    assert totals["samples"] == len(seen) == 78 and totals["samples_in"] == 70
    assert {source["name"]: source["samples"] for source in head} == EPOCH
    packs = [batch for batch in load(repeat=False)]
    assert sum(batch.num_tokens for batch in packs) == totals["tokens"]
    assert sum(int(batch.loss_mask.sum()) for batch in packs) == totals["loss_tokens"]
    assert sum(batch.num_image_tokens for batch in packs) == totals["image_tokens"]
    beside = sum(len(batch.keys) - len(set(batch.keys)) for batch in packs)
    assert beside == totals.get("repeated_in_a_pack", 0) <= 1


def test_faults_are_counted_by_source_folder(load, root):
    loader = load(repeat=False)
    list(loader)
    found = {name: counts["samples_in"] for name, counts in loader.faults.by_source().items()}
    assert found == {str(root / name): number for name, number in EPOCH.items()}


def test_every_window_holds_all_sources_in_proportion():
    sizes, repetitions = [4000, 1000, 50], [Fraction(1), Fraction(2), Fraction(1)]
    hashes = np.random.default_rng(0).integers(0, 1 << 63, sum(sizes)).astype(np.uint64)
    rows = epoch_rows(sizes, repetitions, hashes)
    number = np.array([4000, 2000, 50])
    for start in range(0, len(rows) - 500, 250):
        found = np.bincount(np.searchsorted([4000, 5000], rows[start : start + 500], side="right"), minlength=3)
        assert (abs(found - number * 500 / len(rows)) <= 2).all()
    own = rows[(rows >= 4000) & (rows < 5000)]
    assert own.tolist() == list(range(4000, 5000)) * 2  # each repetition is a pass of its own, in the shards' order


def test_a_fraction_is_chosen_by_content_and_counted_exactly():
    hashes = np.random.default_rng(1).permutation(1000).astype(np.uint64)
    for text, number in (("0.29", 290), ("0.001", 1), ("1.999", 1999), ("3", 3000)):
        assert planned(1000, Fraction(text)) == number == len(epoch_rows([1000], [Fraction(text)], hashes))
    part = epoch_rows([1000], [Fraction("0.29")], hashes)
    assert set(part.tolist()) == set(np.flatnonzero(hashes < 290).tolist())
    mixed = epoch_rows([10, 1000], [Fraction(1), Fraction("0.29")], np.concatenate([hashes[:10], hashes]))
    assert set((mixed[mixed >= 10] - 10).tolist()) == set(part.tolist())  # the same, whatever it is mixed with


def test_a_sample_and_its_repetition_are_put_apart():
    lengths = np.array([5, 5, 4, 6, 9])
    rows, left = separate(np.array([0, 0, 1, 1, 2, 3]), np.array([2, 2, 2]), lengths, 10)
    assert (rows.tolist(), left) == ([0, 1, 0, 1, 2, 3], 0)  # one exchange mends both packs
    rows, left = separate(np.array([0, 0, 4, 2, 3]), np.array([2, 1, 2]), lengths, 10)
    assert (rows.tolist(), left) == ([0, 0, 4, 2, 3], 1)  # nothing fits without making a pack too long
    rows, left = separate(np.array([0, 0, 3, 2]), np.array([2, 2]), lengths, 11)
    assert left == 0 and sorted(rows[:2].tolist() + rows[2:].tolist()) == [0, 0, 2, 3]
    assert all(lengths[pack].sum() <= 11 for pack in (rows[:2], rows[2:]))


@pytest.mark.parametrize("algorithm", ["best_fit_decreasing", "balanced"])
def test_short_passes_are_kept_apart(algorithm):
    book = Book(2)
    random = np.random.default_rng(0)
    for source, number in ((0, 700), (1, 300)):
        lengths = random.integers(50, 6000, number).tolist()
        hashes = random.integers(0, 1 << 62, number).tolist()
        book.take(source, source, ShardLengths(*[lengths] * 6, hashes, number))
    book.pack_epoch(WindowPacker(16384, 4, algorithm=algorithm), [Fraction(2), Fraction("3.5")])
    assert Counter(Counter(book.packed.tolist()).values()) == {2: 700, 3: 150, 4: 150}
    of_pack = np.repeat(np.arange(len(book.counts)), book.counts)
    beside = 2450 - len(set(zip(of_pack.tolist(), book.packed.tolist(), strict=True)))
    # A pack filled to the last tokens exchanges nothing: a few stay. Without exchanges and with one window: hundreds.
    assert book.together == beside == book.totals(16384).get("repeated_in_a_pack", 0) <= 12
    loads = np.bincount(of_pack, -(-np.asarray(book.columns["lengths"])[book.packed] // 4) * 4)
    assert loads.max() <= 16384 and loads.mean() > 0.96 * 16384


def test_the_file_does_not_depend_on_the_workers_or_the_place(root, assets, tmp_path):
    moved = shutil.copytree(root, tmp_path / "moved")
    head = make_index(moved / "mix.yaml", assets, tmp_path / "i", seq_length=CAPACITY, window=25, workers=2)
    assert head["digest"] == read_head(root / "mix.packs")["digest"]


def test_resuming_at_another_layout_continues_the_same_global_batches(load, root):
    assert (6 * BATCH) % len(read_index(root / "mix.packs"))
    expected = global_batches(group(load, 1), 12)
    state, found = None, []
    for size, workers in ((1, 0), (2, 1), (4, 0), (1, 2)):
        loaders = group(load, size, num_workers=workers)
        for loader in loaders if state else ():
            loader.restore(state)
        found += global_batches(loaders, 3)
        state = loaders[-1].state()
    assert found == expected


def test_ranks_share_an_epoch_without_overlap(load, root):
    packs = [[tuple(batch.keys) for batch in loader] for loader in group(load, 3, repeat=False)]
    together = [pack for part in packs for pack in part]
    whole = [tuple(batch.keys) for batch in load(repeat=False)]
    assert sorted(together) == sorted(whole) and len(together) == len(read_index(root / "mix.packs"))
    assert max(map(len, packs)) - min(map(len, packs)) <= 1


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 2)])
def test_energon_itself_reads_the_file_and_gives_whole_repetitions_exactly(load, root, tmp_path, ranks, workers):
    mix = write_epochized([(root / "ant", 1.0), (root / "bee", 3.0)], tmp_path / "whole.yaml")
    small = {"packing_buffer_size": 12, "shuffle_buffer_size": 8, "max_samples_per_sequence": 8, "repeat": False}
    loaders = [
        load(mix, build=build_loader, dp_rank=r, dp_size=ranks, num_workers=workers, **small) for r in range(ranks)
    ]
    times = Counter(name for loader in loaders for name in names(loader))
    assert times == {f"ant-{i:05d}": 1 for i in range(30)} | {f"bee-{i:05d}": 3 for i in range(17)}


def test_energon_rounds_a_fraction_down_in_each_worker(load, root):
    """Why an index counts exactly and a stream without one does not (metadataset: RepeatDataset.__iter__)."""
    small = {"packing_buffer_size": 12, "shuffle_buffer_size": 8, "max_samples_per_sequence": 8, "repeat": False}
    assert of_source(names(load(build=build_loader, **small))) == EPOCH  # one worker: the same counts
    of_two = of_source(names(load(build=build_loader, num_workers=2, **small)))
    assert of_two["ant"] == 30 and all(EPOCH[name] - 1 <= of_two[name] <= EPOCH[name] for name in EPOCH)


def test_another_mix_is_refused_by_folder(load, root, tmp_path):
    here = shutil.copytree(root, tmp_path / "here")
    load(here / "mix.yaml")  # elsewhere, the same
    (here / "bee" / ".nv-meta" / "index.uuid").write_text("another")
    with pytest.raises(UserError, match=r"the shards of .*/here/bee were [-0-9a-f]{36} and are another\.") as caught:
        load(here / "mix.yaml")
    assert "\n" not in str(caught.value) and "ant" not in str(caught.value)
    entries = [{"path": f"{root}/{name}", "repetitions": repeat} for name, (_, repeat) in MIX.items()]
    changed = write_mix(tmp_path, [entries[0] | {"repetitions": 2}, *entries[1:]])
    with pytest.raises(UserError, match="repetitions of .*/ant was 1 and is 2"):
        load(changed)
    with pytest.raises(UserError, match=r"the data was a mix of 3 sources, mix.yaml, and .* is a mix of 2 sources"):
        load(write_mix(tmp_path, entries[:2]))
    with pytest.raises(UserError, match=r"was a mix of 3 sources, mix.yaml, and .*/ant is one folder"):
        load(root / "ant")
    assert data_identity(write_mix(tmp_path, entries)) == read_head(root / "mix.packs")["data"]["identity"]


def test_an_index_of_a_folder_is_not_of_a_mix(load, root, assets, tmp_path):
    make_index(root / "ant", assets, tmp_path / "ant.packs", seq_length=CAPACITY)
    with pytest.raises(UserError, match="the data was one folder, ant, and .*/mix.yaml is a mix of 3 sources"):
        load(index=tmp_path / "ant.packs")


@pytest.mark.parametrize(
    ("train", "text"),
    [
        (
            {"blend": [{"path": "ant", "weight": 1}]},
            "mixes several folders by weight.*`amalia data mix .*blend=epochized",
        ),
        ({"blend_epochized": []}, "names no source"),
        ({"blend_epochized": [{"path": "ant", "repetitions": 0}]}, "has repetitions 0: expected a number above 0"),
        ({"blend_epochized": [{"path": "ant", "repetitions": "2"}]}, "has repetitions '2'"),
        ({"blend_epochized": [{"path": "ant", "subset": {"range": [0, 1]}}]}, "source 0 .* has subset, which an index"),
        ({"blend_epochized": [{"path": "ant", "split_part": "val"}]}, "has split_part 'val'"),
        ({"blend_epochized": ["ant"]}, "source 0 of .* is 'ant': expected the path"),
        ({"blend_epochized": [{"path": "none"}]}, "none does not exist"),
        ({"blend_epochized": [{"path": "bad.yaml"}]}, "bad.yaml names itself"),
        ({"blend_epochized": [{"path": "ant"}, {"path": "bee/../ant"}]}, "ant more than once: .* the sum of its rep"),
        ({"join": []}, "splits.train of .* has join"),
        (None, "has no splits.train"),
    ],
)
def test_mixes_that_have_no_epoch_are_refused_in_one_line(root, assets, tmp_path, capsys, train, text):
    for name in ("ant", "bee"):
        os.symlink(root / name, tmp_path / name)
    (tmp_path / "bad.yaml").write_text(json.dumps({"splits": {"train": train}}))
    with pytest.raises(UserError, match=text) as caught:
        read_sources(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)
    words = ["data", "pack", f"{tmp_path}/bad.yaml", "--assets", str(assets), "--out", f"{tmp_path}/i"]
    assert main(words) == 2 and capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "i").exists()


def test_a_mix_in_a_mix_multiplies(root, tmp_path):
    inner = write_mix(tmp_path, [{"path": f"{root}/ant", "repetitions": 0.1}, {"path": f"{root}/bee"}], "inner.yaml")
    outer = write_mix(tmp_path, [{"path": inner.name, "repetitions": 3}, {"path": f"{root}/cat"}], "outer.yaml")
    found = {source.folder.name: source.repetitions for source in read_sources(outer)}
    assert found == {"ant": Fraction(3, 10), "bee": 3, "cat": 1}


def test_the_command_says_what_an_epoch_holds(root, assets, tmp_path, capsys):
    words = ["data", "pack", f"{root}/mix.yaml", "--assets", str(assets), "--out", f"{tmp_path}/i", "--workers", "0"]
    assert main([*words, "--seq-length", str(CAPACITY), "--window", "25"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "70 samples in 10 shards of 3 sources: 78 packed an epoch, 0 dropped"
    assert [line.split() for line in lines[1:4]] == [
        ["ant", "30", "x", "1", "=", "30"], ["bee", "17", "x", "2.5", "=", "42"], ["cat", "23", "x", "0.3", "=", "6"],
    ]  # fmt: skip


def listed(tmp_path, *faults):
    with open(tmp_path / "0.jsonl", "w") as out:
        write_faults(out, faults)
    return str(tmp_path / "0.jsonl")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_quarantined_sample_leaves_its_packs_alone(load, root, tmp_path, workers):
    file = listed(tmp_path, Fault("shard-000000.tar/bee-00003", "image", "", str(root / "bee"), "shard-000000.tar"))
    loader = load(quarantine=file, num_workers=workers, repeat=False)
    found, whole = [b.keys for b in loader], [b.keys for b in load(repeat=False)]
    assert found == [[key for key in pack if not key.endswith("bee-00003")] for pack in whole] != whole
    counts = loader.faults.by_source()[str(root / "bee")]
    times = sum(key.endswith("bee-00003") for pack in whole for key in pack)
    assert counts["quarantined"] == times >= 2 and counts["samples_in"] == 42
    assert counts["samples_out"] == 42 - times and loader.faults.log() == []  # and not listed again
    resumed = load(quarantine=file)
    state = load()
    take(state, 5)
    resumed.restore(state.state())  # packs keep their places: the position means the same
    assert [batch.keys for batch in take(resumed, 3)] == found[5:8]


def spoil(folder, old, new):
    for shard in folder.glob("*.tar"):
        shard.write_bytes(shard.read_bytes().replace(old, new))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("old", "new", "reason", "text"),
    [
        (b'"resposta resposta 1"', b'"resp", "was": "more"', "other", "bee-00001 has .* tokens and had"),
        (b'"pergunta 1?"', b'"pergunta 1? ', "record", "the json of sample .*bee-00001 cannot be used"),
        (b"bee-00001", b"b\xff/-00001", "record", "shard-000000.tar"),
    ],
)
def test_a_sample_that_cannot_be_read_any_more_follows_the_policy(
    load, tmp_path, assets, workers, old, new, reason, text
):
    for name, number in (("ant", 8), ("bee", 6)):
        shards(tmp_path, name, number, images=0)
    mix = write_mix(tmp_path, [{"path": "ant"}, {"path": "bee", "repetitions": 2}])
    make_index(mix, assets, tmp_path / "i", seq_length=CAPACITY)
    whole = [batch.keys for batch in load(mix, tmp_path / "i", repeat=False)]
    spoil(tmp_path / "bee", old, new)
    with pytest.raises(BadSampleError, match=rf"/bee: .*{text}.*\(pack \d+ of the index\)$") as caught:
        list(load(mix, tmp_path / "i", repeat=False, num_workers=workers))
    assert "\n" not in str(caught.value)
    loader = load(mix, tmp_path / "i", repeat=False, num_workers=workers, on_bad_sample="drop")
    assert [b.keys for b in loader] == [[key for key in pack if "bee-00001" not in key] for pack in whole]
    assert loader.faults.dropped() == {reason: 2}
    assert loader.faults.by_shard() == {(str(tmp_path / "bee"), "shard-000000.tar"): 2}
    again = load(mix, tmp_path / "i", quarantine=listed(tmp_path, *loader.faults.log()), repeat=False)  # "fail"
    assert sum(len(b.keys) for b in again) == 18 and again.faults.dropped() == {"quarantined": 2}
    with pytest.raises(UserError, match="on_bad_sample is 'skip'"):
        load(on_bad_sample="skip")


def test_a_shard_that_is_gone_is_dropped_sample_by_sample(load, tmp_path, assets):
    folder = shards(tmp_path, "ant", 12, images=0)
    make_index(folder, assets, tmp_path / "i", seq_length=CAPACITY)
    loader = load(folder, tmp_path / "i", repeat=False, on_bad_sample="drop")
    (folder / "shard-000001.tar").unlink()
    batches = list(loader)
    assert len(batches) == len(read_index(tmp_path / "i")) and len(names(batches)) == 8
    assert loader.faults.dropped() == {"record": 4}


def test_a_weighted_blend_of_one_folder_still_has_no_epoch(root, assets, tmp_path):
    blend = write_blend([(root / "ant", 1)], tmp_path / "b.yaml")
    with pytest.raises(UserError, match=r"Write repetitions with `amalia data mix .*out=.*b-epochized.yaml`"):
        make_index(blend, assets, tmp_path / "i", seq_length=CAPACITY)
