"""``python -m benchmarks.loader``: samples and tokens a second of the whole data path, beside what people write first.

The peer is PyTorch's DataLoader with transformers' LlavaNextProcessor, padded to the longest of a batch, or to 16,384.
Both have one worker and one thread, read the same shards once and give the same samples. Time is that of all processes'
CPU, start of the worker included: on a machine that others use, the wall says little.
"""

import argparse
import gc
import resource
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.corpus import TOKENS, stream, write
from benchmarks.measure import table
from benchmarks.peer import peer

PEERS = {"DataLoader + processor, longest": "longest", "DataLoader + processor, 16,384": "max_length"}
OURS = "nemo_amalia: packs of 16,384"


def cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def ours(folder: Path) -> tuple[int, int, int]:
    """(samples, real tokens, tokens with padding) of one pass."""
    from nemo_amalia.data.loading.energon_stream import build_loader

    loader = build_loader(folder, *stream(num_workers=1))
    count = tokens = packs = 0
    for batch in loader:
        count, tokens, packs = count + batch.num_samples, tokens + batch.num_tokens, packs + 1
    loader.close()
    return count, tokens, packs * TOKENS


def theirs(folder: Path, padding: str) -> tuple[int, int, int]:
    """As `ours`, of the peer."""
    count = tokens = padded = 0
    for batch in peer(folder, padding):
        count += len(batch["input_ids"])
        tokens += int(batch["attention_mask"].sum())
        padded += batch["input_ids"].numel()
    return count, tokens, padded


def main() -> None:
    """Prints samples and real tokens a CPU second, the share of tokens that are real, and ratios to the peers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = {OURS: ours} | {name: lambda folder, p=padding: theirs(folder, p) for name, padding in PEERS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    given: dict[str, tuple[int, int, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        shards = write(Path(folder) / "shards", arguments.samples)
        warm = write(Path(folder) / "warm", 8)
        for run in runs.values():
            run(warm)  # imports
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                gc.collect()
                start = cpu()
                given[name] = run(shards)
                seconds[name].append(cpu() - start)
    assert {counts[0] for counts in given.values()} == {arguments.samples}, given
    own = given[OURS][1] / statistics.median(seconds[OURS])
    rows = []
    for name, (count, tokens, padded) in given.items():
        spent = statistics.median(seconds[name])
        rows.append(
            (
                name,
                f"{count / spent:.1f}",
                f"{tokens / spent:,.0f}",
                f"{100 * tokens / padded:.1f}",
                f"{own / (tokens / spent):.2f}",
            )
        )
    head = ("one worker", "samples a CPU-s", "real tokens a CPU-s", "real of all tokens %", "nemo_amalia is faster by")
    print(table(head, rows))
    print(f"medians of {arguments.rounds} rounds of {arguments.samples} samples")


if __name__ == "__main__":
    main()
