"""``make demo``: data, import, stages 1 to 3, export, answers, report; every step by the commands a user has.

Two ranks share every layer (TP=2 with sequence parallelism) on Gloo: the code that 128 GPUs run. Numbers of samples
are here, everything about training is in conf/stage/{alignment,sft,dpo}_demo.yaml and conf/data/demo.yaml.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from demo.memory import PeakMemory

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "demo" / "base"
ALIGNMENT_SAMPLES, SFT_SAMPLES, PAIRS = 3900, 7000, 720
QUESTIONS, DRAWINGS = 500, 100  # held out
MAX_TILES = 4
MARK = ".demo"  # in a folder that the next demo may empty
LAPTOP = ["precision=fp32", "data=demo", "checkpoint.save_interval=1000"]
TWO_RANKS, ONE_RANK = ["parallel=tp2", "launch.ranks=2"], ["parallel=single", "launch.ranks=1"]
#: Two ranks on Gloo wherever this runs: on a machine with one GPU they would both want it.
ENVIRONMENT = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
STACK = ("torch", "megatron-core", "megatron-bridge", "megatron-energon", "nvidia-dali-cuda130", "transformers")


class Demo:
    """The steps, each timed; a step that fails ends the demo with its own words."""

    def __init__(self, folder: Path, questions: int):
        self.folder, self.questions = folder, questions
        self.begin = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def step(self, name: str, what: str, command: list[str]) -> None:
        """Run a command and note how long it took."""
        print(f"\n== {what}", flush=True)
        start = time.perf_counter()
        self.check(command, subprocess.run(command, cwd=ROOT, env=ENVIRONMENT).returncode)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        print(f"   {time.perf_counter() - start:.0f} s", flush=True)

    @contextlib.contextmanager
    def beside(self, name: str, what: str, command: list[str]):
        """Run a command while the steps of the block run; counts only the seconds by which it outlasts them."""
        print(f"\n== {what} (beside the next steps)", flush=True)
        with tempfile.TemporaryFile("w+") as said:
            running = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=said, stderr=subprocess.STDOUT)
            try:
                yield
                start = time.perf_counter()
                running.wait()
            finally:
                running.kill()
            self.seconds[name] = time.perf_counter() - start
            said.seek(0)
            print(f"\n== {what}: done\n{said.read().rstrip()}", flush=True)
            self.check(command, running.returncode)

    def check(self, command: list[str], code: int) -> None:
        """End the demo where a command failed."""
        if code:
            sys.exit(f"demo: {' '.join(command[:4])} ended with code {code}")

    def amalia(self, *words) -> list[str]:
        """The command line of the product."""
        return [sys.executable, "-m", "nemo_amalia.cli", *map(str, words)]

    def python(self, module: str, *words) -> list[str]:
        """A module of the demo."""
        return [sys.executable, "-m", module, *map(str, words)]

    def train(self, stage: str, checkpoint: Path, data: Path) -> list[str]:
        """One stage on two ranks."""
        words = [f"stage={stage}_demo", f"model.checkpoint={checkpoint}", f"data.path={data}"]
        return self.amalia("train", *words, f"run_dir={self.folder / stage}", *LAPTOP, *TWO_RANKS)

    def answer(self, model: Path, when: str) -> list[str]:
        """Ask the held-out questions of an exported folder, with plain transformers."""
        out = self.folder / f"answers_{when}.jsonl"
        asked = ["--samples", self.questions, "--drawings", DRAWINGS]
        return self.python("demo.answer", "--model", model, *asked, "--out", out)

    def run(self) -> None:
        """Everything, in order."""
        f = self.folder
        with PeakMemory() as memory:
            self.train_and_ask()
        self.write_facts(memory.bytes)
        self.step("report", "report", self.python("demo.report.page", "--run", f, "--out", f / "report"))
        minutes = (time.perf_counter() - self.begin) / 60
        print(f"\ndemo: {minutes:.1f} minutes, at most {memory.bytes / 2**30:.1f} GiB of memory", end="")
        print(f"; open {f / 'report' / 'report.html'}")

    def train_and_ask(self) -> None:
        """Data, import, the three stages, export, and the questions before stage 1, after stage 2 and after stage 3."""
        f = self.folder
        draw = ["--out", f / "data", "--alignment", ALIGNMENT_SAMPLES, "--sft", SFT_SAMPLES]
        draw += ["--pairs", PAIRS, "--workers", 1]
        data = self.python("demo.scenes.build", *draw)
        with self.beside("data", "draw scenes, texts, photographs and drawings; write shards", data):
            take = ["--vision", BASE / "vision", "--llm", BASE / "decoder", "--max-tiles", MAX_TILES, "--dtype", "fp32"]
            self.step("import", "import tower and decoder", self.amalia("import", *take, "--out", f / "base"))
            self.step(
                "export",
                "export what is not trained yet",
                self.amalia("export", "--checkpoint", f / "base", "--out", f / "hf_before"),
            )
            self.step("answers", "ask it", self.answer(f / "hf_before", "before"))
        stage1 = self.train("alignment", f / "base", f / "data" / "alignment")
        self.step("alignment", "stage 1: connector, thumbnails, captions", stage1)
        stage2 = self.train("sft", f / "alignment" / "checkpoints", f / "data" / "sft")
        self.step("sft", "stage 2: everything, tiles, packs", stage2)
        self.prefer()
        self.export_and_ask("dpo", f / "hf", "after")

    def prefer(self) -> None:
        """Stage 3: the reference's log-probabilities once, on one rank beside the questions, then DPO on the pairs."""
        start, pairs = self.folder / "sft" / "checkpoints", self.folder / "data" / "pairs"
        words = ["--checkpoint", start, "--data", pairs, "stage=dpo_demo", *LAPTOP, *ONE_RANK]
        reference = self.amalia("reference", *words)
        with self.beside("reference", "the reference's log-probabilities of the pairs", reference):
            self.export_and_ask("sft", self.folder / "hf_sft", "sft")
        self.step("dpo", "stage 3: pt-PT answers over pt-BR ones", self.train("dpo", start, pairs))

    def export_and_ask(self, stage: str, out: Path, when: str) -> None:
        """What a stage has learned, as a Hugging Face folder."""
        checkpoints = self.folder / stage / "checkpoints"
        self.step("export", f"export {stage}", self.amalia("export", "--checkpoint", checkpoints, "--out", out))
        self.step("answers", "ask it again", self.answer(out, when))

    def write_facts(self, peak_memory: int) -> None:
        """What the report says about the run, measured here."""
        from safetensors import safe_open

        parameters = 0
        for file in (self.folder / "hf").glob("*.safetensors"):
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():
                    size = 1
                    for extent in tensors.get_slice(name).get_shape():
                        size *= extent
                    parameters += size
        facts = {
            "parameters": parameters,
            "layout": "TP=2 with sequence parallelism, two processes on Gloo",
            "seconds": self.seconds,
            "peak_memory_bytes": peak_memory,
            "versions": {name: importlib.metadata.version(name) for name in STACK},
        }
        (self.folder / "facts.json").write_text(json.dumps(facts, indent=1))


def main() -> None:
    """Command line of the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "demo", help="made anew each time")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).is_file():
        sys.exit(f"demo: {folder} holds something that is no demo: choose another --folder, this one would be emptied")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    Demo(folder, arguments.questions).run()


if __name__ == "__main__":
    main()
