"""The demo's training data as WebDataset shards, by the writer that real data uses."""

import argparse
from pathlib import Path

from demo.scenes import samples
from nemo_amalia.data.shards.write import write_shards

TRAIN_SEED = 7


def main() -> None:
    """Draw and write the samples of every stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--alignment", type=int, required=True, help="samples of stage 1")
    parser.add_argument("--sft", type=int, required=True, help="samples of stage 2")
    parser.add_argument("--pairs", type=int, default=0, help="preference pairs of stage 3")
    parser.add_argument("--workers", type=int, help="processes that draw; default: the cores, at most 4")
    arguments = parser.parse_args()
    stages = {"alignment": samples.alignment_samples, "sft": samples.sft_samples, "pairs": samples.pair_samples}
    for name, draw in stages.items():
        if not getattr(arguments, name):
            continue
        report = write_shards(draw(getattr(arguments, name), TRAIN_SEED, arguments.workers), arguments.out / name)
        print(f"   {name}: {report}", flush=True)


if __name__ == "__main__":
    main()
