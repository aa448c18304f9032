"""``python -m benchmarks.preferences``: what stage dpo takes, in time and memory, beside SFT on the same packs.

Real runs of `amalia train`, one rank, in turn, on demo pairs; the model is random and larger than the demo's (some 60 M
parameters), so that its memory is what is measured and not the libraries'. Peak memory is of the rank's process, less
what it has when everything is imported. SFT trains on both answers of each pair as two conversations: the same tokens
in packs as full, images encoded once for each, as in DPO with data.share_pair_images=false.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import table

SEQ_LENGTH, PAIRS = 4096, 160
DECODER = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8}
TOWER = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
#: name -> (data, overrides)
RUNS = {
    "SFT on both answers": ("conversations", ["stage=sft_demo"]),
    "DPO, images encoded for each answer": ("pairs", ["stage=dpo_demo", "data.share_pair_images=false"]),
    "DPO, images encoded once (the default)": ("pairs", ["stage=dpo_demo"]),
    "DPO, reference in memory": ("pairs", ["stage=dpo_demo", "stage.reference=in_memory"]),
}
ENVIRONMENT = os.environ | {"CUDA_VISIBLE_DEVICES": "", "TORCHDYNAMO_DISABLE": "1"}
IMPORTED = """
from nemo_amalia.platform import prepare
prepare()
import nemo_amalia.training.run
from nemo_amalia.training.callbacks.progress import peak_bytes
print(peak_bytes())
"""


def amalia(*words) -> None:
    """A command of the product; its output goes with the error where it fails."""
    done = subprocess.run([sys.executable, "-m", "nemo_amalia.cli", *map(str, words)], env=ENVIRONMENT,
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"amalia {' '.join(map(str, words))}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def imported_bytes() -> int:
    """Peak of a process that has imported what a rank imports, and done nothing."""
    done = subprocess.run([sys.executable, "-c", IMPORTED], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def write_model(folder: Path) -> Path:
    """A random model of DECODER and TOWER with the demo's tokenizer and tiles, as a Megatron checkpoint."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel

    from demo.pretraining.tiny import BASE, save_decoder, save_vision

    tower = SiglipVisionConfig.from_pretrained(BASE / "vision", **TOWER)
    decoder = LlamaConfig.from_pretrained(BASE / "decoder", **DECODER)
    decoder.num_key_value_heads, decoder.head_dim = 4, DECODER["hidden_size"] // DECODER["num_attention_heads"]
    save_vision(SiglipVisionModel(tower), folder / "vision")
    save_decoder(LlamaForCausalLM(decoder), AutoTokenizer.from_pretrained(BASE / "decoder"), folder / "decoder")
    words = ["--vision", folder / "vision", "--llm", folder / "decoder", "--max-tiles", 4, "--dtype", "fp32"]
    amalia("import", *words, "--out", folder / "model")
    return folder / "model"


def write_data(folder: Path) -> None:
    """The pairs, and the same answers as conversations, two a pair."""
    from demo.scenes.samples import pair_samples
    from nemo_amalia.data.shards.write import write_shards

    pairs = list(pair_samples(PAIRS, seed=1, workers=1))
    write_shards(pairs, folder / "pairs")
    write_shards(
        (
            {**{name: pair[name] for name in ("images", "source", "language")},
             "key": f"{pair['key']}-{answer}", "messages": [*pair["messages"], *pair[answer]]}
            for pair in pairs
            for answer in ("chosen", "rejected")
        ),
        folder / "conversations",
    )  # fmt: skip


def train(folder: Path, model: Path, name: str, steps: int, number: int) -> list[dict]:
    """Metrics of the steps of one run, but the first two: buffers are made then."""
    data, overrides = RUNS[name]
    run_dir = folder / f"run-{number}"
    words = [f"model.checkpoint={model}", f"data.path={folder / data}", f"run_dir={run_dir}", "data=demo"]
    words += ["parallel=single", "precision=fp32", "launch.ranks=1", f"stage.train_steps={steps}"]
    words += [f"stage.seq_length={SEQ_LENGTH}", "checkpoint.save_interval=1000", "data.packing_buffer_size=50"]
    amalia("train", *words, *overrides)
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()][2:]


def main() -> None:
    """Prints seconds a step, tiles a pack and peak memory of each run, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, libraries = write_model(folder), imported_bytes()
        write_data(folder)
        amalia("reference", "--checkpoint", model, "--data", folder / "pairs", "stage=dpo_demo", "parallel=single",
               "precision=fp32", "launch.ranks=1", f"stage.seq_length={SEQ_LENGTH}")  # fmt: skip
        found: dict[str, list[dict]] = {run: [] for run in RUNS}
        peaks: dict[str, list[float]] = {run: [] for run in RUNS}
        for number in range(arguments.rounds * len(RUNS)):
            run = list(RUNS)[number % len(RUNS)]
            found[run] += train(folder, model, run, arguments.steps, number)
            peaks[run].append(found[run][-1]["peak_memory_gb"] - libraries / 1e9)
    print_table(found, peaks, arguments.rounds, libraries)


def print_table(found: dict[str, list[dict]], peaks: dict[str, list[float]], rounds: int, libraries: int) -> None:
    """A row a run; a step is measured by the tokens it held, for packs differ by a pair."""
    seconds = {run: statistics.median(s["seconds"] / s["tokens"] for s in steps) for run, steps in found.items()}
    memory = {run: statistics.median(values) for run, values in peaks.items()}
    tiles = {run: sum(s["tiles"] for s in steps) / sum(s["tokens"] for s in steps) for run, steps in found.items()}
    first = next(iter(RUNS))
    rows = [
        (run, f"{seconds[run] * SEQ_LENGTH:.2f}", f"{seconds[run] / seconds[first]:.2f}",
         f"{tiles[run] * SEQ_LENGTH:.0f}", f"{memory[run]:.2f}", f"{memory[run] / memory[first]:.2f}")
        for run in RUNS
    ]  # fmt: skip
    print(table(("one rank", "s a pack", "ratio", "tiles", "peak GB", "ratio"), rows))
    print(f"medians of {rounds} rounds; libraries, not counted: {libraries / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
