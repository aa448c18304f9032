"""``python -m benchmarks.workers``: what a second worker brings, and what a worker and its state in a checkpoint weigh.

Throughput is by the clock (samples a second of one pass, from the first batch on), 1 and 2 workers in turn: run it on a
machine that does nothing else. Memory is a worker's peak with a buffer of 500 samples of 2-megapixel photographs, most
of them compressed: its resident bytes (libraries included), and of these what is its own (not shared with its parent).
"""

import argparse
import itertools
import pickle
import re
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.corpus import TWO_MEGAPIXELS, stream, write
from benchmarks.measure import table

BUFFER = 500


def seconds_a_sample(folder: Path, workers: int) -> float:
    """Of a pass over the shards, without the batches that come first: workers start and fill their buffers then."""
    from nemo_amalia.data.loading.energon_stream import build_loader

    loader = build_loader(folder, *stream(num_workers=workers, packing_buffer_size=50, shuffle_buffer_size=50))
    for _ in itertools.islice(loader, 4 * workers):
        pass
    start, count = time.perf_counter(), 0
    for batch in loader:
        count += batch.num_samples
    elapsed = time.perf_counter() - start
    loader.close()
    return elapsed / count


def peak_bytes(pid: int) -> int:
    """Largest resident size of a process so far."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def own_bytes(pid: int) -> int:
    """What only this process has in memory now."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"Private_\w+:\s+(\d+) kB", text)) * 1024


def weigh(folder: Path) -> tuple[int, int, int]:
    """(peak bytes, own bytes now, bytes of a checkpoint's state) of a worker in mid-stream, its buffer full."""
    from nemo_amalia.data.loading.energon_stream import build_loader

    settings, form = stream(num_workers=1, packing_buffer_size=BUFFER)
    loader = build_loader(folder, replace(settings, repeat=True, checkpoint_every_seconds=0), form)
    for _ in itertools.islice(loader, 200):
        pass
    (worker,) = loader._energon._iterator._workers
    found = peak_bytes(worker.pid), own_bytes(worker.pid), len(pickle.dumps(loader.state()))
    loader.close()
    return found


def main() -> None:
    """Prints samples a second with one and two workers and their ratio; a worker's memory; the size of a state."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shards = write(Path(folder) / "shards", arguments.samples)
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _, workers in itertools.product(range(arguments.rounds), seconds):
            seconds[workers].append(seconds_a_sample(shards, workers))
        rates = {workers: 1 / statistics.median(values) for workers, values in seconds.items()}
        rows = [(f"{n} worker{'s' * (n > 1)}", f"{rate:.1f}", f"{rate / rates[1]:.2f}") for n, rate in rates.items()]
        print(table(("by the clock", "samples/s", "ratio"), rows))
        print(f"medians of {arguments.rounds} rounds of {arguments.samples} samples")
        peak, own, state = weigh(write(Path(folder) / "large", 2 * BUFFER, TWO_MEGAPIXELS))
    print(f"a worker with {BUFFER} samples of 2 megapixels: at most {peak / 1e9:.2f} GB, of its own {own / 1e9:.2f} GB")
    print(f"the state that a checkpoint saves: {state / 1e6:.2f} MB a worker")


if __name__ == "__main__":
    main()
