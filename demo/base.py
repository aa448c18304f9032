"""`python -m demo.base` (`make demo-base`): makes the small pretrained pair that the repository ships.

The tower learns by contrast with captions, the decoder from Portuguese text; neither sees a question, nor
anything of the evaluation side of demo/split.py. Runs on CPU or CUDA.

The shipped pair was made on two CPU cores in two runs: seed 0 with the defaults (tower 1,600 steps on 12,000 pictures,
decoder 1,500 steps), then `--go-on --seed 1` (tower 1,200 steps on 9,000 pictures, decoder 1,500). Between the two
the drawn words, the share of written panels, the decoder's text and the tokenizer changed (331 of 1,024 ids stayed), so
a fresh run gives its like, not its bytes.
"""

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

from demo import tiny


def _log(line: str) -> None:
    print(line, flush=True)


def render(count: int, seed: int, workers: int) -> list[dict]:
    """The tower's pictures, with phrases and captions, drawn by a pool."""
    from demo.tower_training import scene_record

    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(partial(scene_record, seed=seed), range(count), chunksize=64))


def main(argv: list[str] | None = None) -> None:
    """Train what is asked for and write it as Hugging Face folders under --out."""
    parser = argparse.ArgumentParser(prog="python -m demo.base", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=tiny.BASE)
    parser.add_argument("--parts", nargs="+", choices=("tower", "decoder"), default=["tower", "decoder"])
    parser.add_argument("--pictures", type=int, default=12000, help="drawn for the tower")
    parser.add_argument("--tower-steps", type=int, default=1600)
    parser.add_argument("--decoder-steps", type=int, default=1500)
    parser.add_argument("--go-on", action="store_true", help="train what is in --out further, not afresh")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    tokenizer = tiny.build_tokenizer()  # the same at every seed: a decoder that goes on keeps its ids
    if "tower" in args.parts:
        from transformers import SiglipVisionModel

        from demo.tower_training import train_tower

        _log(f"drawing {args.pictures} pictures")
        records = render(args.pictures, args.seed, args.threads)
        start = None
        if args.go_on:
            start = SiglipVisionModel.from_pretrained(args.out / "vision", dtype=torch.float32)
        tower = train_tower(tokenizer, records, args.tower_steps, args.device, args.seed, start, log=_log)
        tiny.save_vision(tower, args.out / "vision")
    if "decoder" in args.parts:
        from transformers import LlamaForCausalLM

        from demo.decoder_training import train_decoder

        start = None
        if args.go_on:
            start = LlamaForCausalLM.from_pretrained(args.out / "decoder", dtype=torch.float32)
        decoder = train_decoder(tokenizer, args.decoder_steps, args.device, args.seed, start, log=_log)
        tiny.save_decoder(decoder, tokenizer, args.out / "decoder")


if __name__ == "__main__":
    main()
