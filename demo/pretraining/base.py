"""`python -m demo.pretraining.base` (`make demo-base`): makes the small pretrained pair that the repository ships.

The tower learns by contrast with captions, the decoder from Portuguese text; neither sees a question, nor
anything of the evaluation side of demo/scenes/split.py. Runs on CPU or CUDA.

The shipped pair: tower and decoder side by side with `--parts` and `--threads 1`, then three rounds of bags (1,200,
1,200 and 1,400 steps); about an hour on two cores. The first two rounds had fewer of bags.py's
`bindings`, and another number of threads sums in another order: a new run gives a similar pair, not the same bytes.
"""

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

from demo.pretraining import tiny
from nemo_amalia.utils.devices import has_gpu

PARTS = ("tower", "decoder", "bags")


def _log(line: str) -> None:
    print(line, flush=True)


def render(count: int, seed: int, workers: int) -> list[dict]:
    """The tower's pictures, with phrases and captions, drawn by a pool."""
    from demo.pretraining.tower import scene_record

    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(partial(scene_record, seed=seed), range(count), chunksize=64))


def main(argv: list[str] | None = None) -> None:
    """Train what is asked for and write it as Hugging Face folders under --out."""
    parser = argparse.ArgumentParser(prog="python -m demo.pretraining.base", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=tiny.BASE)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--pictures", type=int, default=20000, help="drawn for the tower")
    parser.add_argument("--tower-steps", type=int, default=3200)
    parser.add_argument("--decoder-steps", type=int, default=2200, help="on text")
    parser.add_argument("--bag-steps", type=int, default=1300, help="on text and bags of words, after it, a round")
    parser.add_argument("--bag-rounds", type=int, default=3, help="each warms up and cools down once")
    parser.add_argument("--device", default="cuda" if has_gpu() else "cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    tokenizer = tiny.build_tokenizer()
    if "tower" in args.parts:
        from demo.pretraining.tower import train_tower

        _log(f"drawing {args.pictures} pictures")
        records = render(args.pictures, args.seed, args.threads)
        tower = train_tower(tokenizer, records, args.tower_steps, args.device, args.seed, log=_log)
        tiny.save_vision(tower, args.out / "vision")
    if "decoder" in args.parts:
        from demo.pretraining.decoder import train_decoder

        decoder = train_decoder(tokenizer, args.decoder_steps, args.device, args.seed, log=_log)
        tiny.save_decoder(decoder, tokenizer, args.out / "decoder")
    if "bags" in args.parts:
        from transformers import LlamaForCausalLM

        from demo.pretraining.decoder import train_decoder

        for turn in range(args.bag_rounds):
            start = LlamaForCausalLM.from_pretrained(args.out / "decoder", dtype=torch.float32)
            seed = args.seed + 1 + turn
            decoder = train_decoder(tokenizer, args.bag_steps, args.device, seed, bag_share=0.75, start=start, log=_log)
            tiny.save_decoder(decoder, tokenizer, args.out / "decoder")


if __name__ == "__main__":
    main()
