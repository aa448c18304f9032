"""``python -m benchmarks.packing``: how full packs are and what packing costs, on lengths like the paper's mix.

Lengths: exp(N(8.1, 0.75)) cut to 16,384, mean about 4,300 tokens (the paper gives no distribution; 2 B text tokens and
images of up to 12 tiles over 4.7 M samples make about that mean). Beside ours: greedy in order, as Megatron-LM's
examples/multimodal packs, first-fit in a buffer, and TRL's `pack_dataset`, which moves the tokens themselves: its time
holds that, and it packs no images.
"""

import argparse
import random
import time

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset
from trl import pack_dataset

from benchmarks.measure import table
from nemo_amalia.data.packing.algorithms import ALGORITHMS, fill, under_filled
from nemo_amalia.data.packing.windows import WindowPacker

CAPACITY = 16384


def lengths_like_the_papers(number: int, seed: int) -> list[int]:
    """Tokens of samples."""
    rng = random.Random(seed)
    return [min(CAPACITY, max(50, int(rng.lognormvariate(8.1, 0.75)))) for _ in range(number)]


def greedy(lengths: list[int], capacity: int) -> list[list[int]]:
    """A pack is closed as soon as the next sample does not fit."""
    packs, left = [[]], capacity
    for index, length in enumerate(lengths):
        if length > left:
            packs.append([])
            left = capacity
        packs[-1].append(index)
        left -= length
    return packs


def first_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """Each sample into the first pack with room."""
    packs: list[list[int]] = []
    free: list[int] = []
    for index, length in enumerate(lengths):
        which = next((i for i, space in enumerate(free) if space >= length), None)
        if which is None:
            packs.append([])
            free.append(capacity)
            which = len(packs) - 1
        packs[which].append(index)
        free[which] -= length
    return packs


def in_buffers(pack, size: int):
    """`pack` on one buffer after another, each emptied before the next: what Energon's packing buffer does."""

    def run(lengths: list[int], capacity: int) -> list[list[int]]:
        packs = []
        for start in range(0, len(lengths), size):
            packs += [[start + i for i in chosen] for chosen in pack(lengths[start : start + size], capacity)]
        return packs

    return run


def patient(size: int):
    """Ours: best-fit-decreasing in a buffer whose under-filled packs stay in it (task_encoder.py)."""

    def run(lengths: list[int], capacity: int) -> list[list[int]]:
        packs, buffer, following = [], [], 0
        while buffer or following < len(lengths):
            new = min(size - len(buffer), len(lengths) - following)
            buffer += range(following, following + new)
            following += new
            sizes = [lengths[i] for i in buffer]
            chosen = ALGORITHMS["best_fit_decreasing"](sizes, capacity)
            waiting = under_filled(chosen, sizes, capacity) if len(buffer) == size else set()
            packs += [[buffer[i] for i in pack] for which, pack in enumerate(chosen) if which not in waiting]
            buffer = [buffer[i] for which in waiting for i in chosen[which]]
        return packs

    return run


def trl(lengths: list[int], capacity: int) -> list[list[int]]:
    """TRL's best-fit-decreasing, in the batches of 1,000 that datasets.map takes; a token's value is its sample."""
    tokens = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    rows = pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), tokens)
    packed = pack_dataset(Dataset(pa.table({"input_ids": rows})), capacity).with_format("numpy")
    return [row["input_ids"][np.cumsum(row["seq_lengths"]) - 1].tolist() for row in packed]


def ahead(lengths: list[int], capacity: int) -> list[list[int]]:
    """`amalia data pack`: windows of 4,000 samples, under-filled packs wait for the next."""
    packer = WindowPacker(capacity)
    packs = [pack for start in range(0, len(lengths), 4000) for pack in packer.add(lengths[start : start + 4000])]
    return packs + packer.finish()


def variance_between(packs: list[list[int]], lengths: list[int]) -> float:
    """Share of the lengths' variance that lies between packs, 0 to 1: high where packs hold like lengths."""
    mean = sum(lengths) / len(lengths)
    means = [sum(lengths[i] for i in pack) / len(pack) for pack in packs]
    between = sum(len(pack) * (m - mean) ** 2 for pack, m in zip(packs, means, strict=True))
    return between / sum((length - mean) ** 2 for length in lengths)


def at_random(lengths: list[int], capacity: int) -> list[list[int]]:
    """First-fit in a random order: what packs would be if length played no part."""
    order = random.Random(0).sample(range(len(lengths)), len(lengths))
    return [[order[i] for i in pack] for pack in first_fit([lengths[i] for i in order], capacity)]


def main() -> None:
    """Prints fill, CPU microseconds a sample, and how much of the lengths' variance lies between packs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    best, even = ALGORITHMS["best_fit_decreasing"], ALGORITHMS["balanced"]
    packers = {
        "greedy in order": greedy,
        "first-fit, buffer 500": in_buffers(first_fit, 500),
        "first-fit of a shuffled buffer of 500": in_buffers(at_random, 500),
        "balanced, buffer 500": in_buffers(even, 500),
        "best-fit-decreasing, buffer 500": in_buffers(best, 500),
        "TRL, best-fit-decreasing, batches of 1,000": trl,
        "nemo_amalia, buffer 500 (the default)": patient(500),
        "nemo_amalia, buffer 2,000": patient(2000),
        "nemo_amalia, ahead: amalia data pack": ahead,
    }
    used: dict[str, list[float]] = {name: [] for name in packers}
    full: dict[str, list[float]] = {name: [] for name in packers}
    apart: dict[str, list[float]] = {name: [] for name in packers}
    for seed in range(arguments.rounds):
        lengths = lengths_like_the_papers(arguments.samples, seed)
        for name, pack in packers.items():
            start = time.process_time()
            packs = pack(lengths, CAPACITY)
            used[name].append((time.process_time() - start) / len(lengths) * 1e6)
            assert sorted(index for chosen in packs for index in chosen) == list(range(len(lengths)))
            full[name].append(fill(packs, lengths, CAPACITY))
            apart[name].append(variance_between(packs, lengths))
    middle = arguments.rounds // 2
    rows = [
        (
            n,
            *(
                f"{scale * sorted(of[n])[middle]:.{d}f}"
                for of, scale, d in ((full, 100, 2), (used, 1, 1), (apart, 100, 0))
            ),
        )
        for n in packers
    ]
    print(table((f"packs of {CAPACITY:,} tokens", "fill %", "µs a sample", "variance between packs %"), rows))
    print(f"medians of {arguments.rounds} rounds of {arguments.samples:,} samples")


if __name__ == "__main__":
    main()
