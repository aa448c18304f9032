"""kill -9 at random moments of a run: the batches of all its lives are those of a run that was never killed."""

import itertools
import random
import time

import pytest
from chatml import conversation
from consumer import SAVE_EVERY, Run
from streams import build_index_loader, build_loader, make_index

from nemo_amalia.data.shards.write import write_shards

CAPACITY = 512
LOADERS = ("energon", "index")


@pytest.fixture(scope="module")
def build(tmp_path_factory, assets, chat, geometry):
    """A function for each loader, that builds it with two workers, packing and, where there are any, full buffers."""
    samples = (conversation(i, images=i % 3, words=1 + i % 7) for i in range(48))
    folder = write_shards(samples, tmp_path_factory.mktemp("kill") / "data", 16).folder
    make_index(folder, assets, folder.parent / "data.packs", seq_length=CAPACITY, window=20)
    common = {"geometry": geometry, "chat": chat, "seq_length": CAPACITY, "num_workers": 2, "seed": 5}
    common |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    buffers = {"packing_buffer_size": 12, "shuffle_buffer_size": 8, "max_samples_per_sequence": 8}
    # What libraries load with their first batch they load here, and not in every worker of every life.
    warm = build_loader(folder, **(buffers | common | {"num_workers": 0}))
    next(warm)
    warm.close()
    return {
        # A worker notes its position so often that some of what it redoes is little, and some much.
        "energon": lambda: build_loader(folder, checkpoint_every_seconds=0.2, **buffers, **common),
        "index": lambda: build_index_loader(folder.parent / "data.packs", folder, **common),
    }


@pytest.fixture
def start(tmp_path):
    runs = []

    def begin(build, name, number, hold=None):
        runs.append(Run(build, tmp_path / name, number))
        runs[-1].start(hold)
        return runs[-1]

    yield begin
    for run in runs:
        run.end()


def check(start, build, number, kills):
    """kills: (batches of that life, seconds after the last of them or None to hold it there, whether the workers are
    killed with it).
    """
    whole = start(build, "whole", number)
    whole.finish()
    expected = dict(whole.lines())
    assert len(expected) == len(whole.lines()) == number
    order = list(expected.values())  # an index gives the same packs again in the next epoch, but never at once
    assert len(set(order)) > 10 and all(one != other for one, other in itertools.pairwise(order))
    holds = [batches if seconds is None else None for batches, seconds, _ in kills] + [None]
    run, lost = start(build, "killed", number, holds[0]), []
    for (batches, seconds, with_workers), hold in zip(kills, holds[1:], strict=True):
        lost.append(run.kill_after(batches, seconds or 0.0, with_workers))
        run.start(hold)
    run.finish()
    assert len(run.sessions) == len(kills) + 1  # each killed in the middle, or kill_after had said so
    # Batches of a killed life that came after its last saved position were given again, and were the same again.
    repeated = len(run.lines()) - number
    assert repeated == sum(lost) and sum(map(bool, lost)) >= len(kills) // 3
    wrong = [number for number, digest in run.lines() if digest != expected[number]]
    assert not wrong and {number for number, _ in run.lines()} == set(expected)
    deadline = time.monotonic() + 30
    while whole.left_behind() + run.left_behind():  # a worker looks for its parent every 5 s
        assert time.monotonic() < deadline, "workers were left behind"
        time.sleep(0.1)
    return lost


@pytest.mark.parametrize("loader", LOADERS)
def test_two_kills(start, build, loader):
    lost = check(start, build[loader], 24, [(SAVE_EVERY + 2, None, True), (3, None, True)])
    assert lost == [2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("seed", [0, 1])
def test_ten_kills(start, build, loader, seed):
    rng = random.Random(f"{loader} {seed}")
    # Two before the first batch, the others up to two saved positions later; two that leave the workers alone.
    kills = [
        (rng.randrange(1, 2 * SAVE_EVERY + 2) if index % 5 else 0, rng.uniform(0, 0.3), index % 5 != 4)
        for index in range(10)
    ]
    print(loader, seed, kills)
    print("given after the last saved position:", check(start, build[loader], 160, kills))
