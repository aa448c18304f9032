"""``python -m benchmarks.data_engine``: what the engine adds to a sample; samples a second with 1 and 2 workers.

Overhead is CPU time of the machinery for a sample (read, asked, journalled, counted; then counted and read again for
the shards) less that of the steps alone, called in a loop. The model of the second table answers after a fixed time,
as a server does that computes elsewhere; samples a second are by the clock, while tasks work: run it on a machine
that does nothing else. Images are of `--image-kb`.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from benchmarks.measure import table
from data_prep.engine.execute import run_local
from data_prep.engine.finish import _samples, check_phase, finish
from data_prep.engine.folder import RunFolder
from data_prep.engine.pulse import Pulse
from data_prep.engine.records import plan_source
from data_prep.engine.steps import Run, load_phases
from data_prep.engine.task import Task

MODEL_SECONDS = 0.5
CONCURRENCY = 32


@dataclass
class Reply:
    """An answer that took no computing here."""

    text: str = "Um painel de azulejos."
    model: str = "sleeper@1"
    tokens_in: int = 700
    tokens_out: int = 40
    cost: float = 0.0
    cached: bool = False


@dataclass
class Question:
    """What a step asks."""

    role: str = "caption"
    prompt: str = "caption@0000"


class Sleeper:
    """A model that answers after `seconds`, whoever else is asking."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def ask(self, request: Question) -> Reply:
        """Sleeps."""
        await asyncio.sleep(self.seconds)
        return Reply()


def models(conf) -> Sleeper:
    """The engine opens it."""
    return Sleeper(conf.model_seconds)


def pipeline(conf) -> list:
    """Records with a picture, two calls, a conversation."""
    picture = b"\x89PNG\r\n\x1a\n" + random.Random(0).randbytes(conf.image_kb * 1000)  # noqa: S311

    def records():
        for number in range(conf.records):
            yield {"number": number, "source": "benchmark", "licence": "CC0-1.0"}

    def load(sample, run):
        return sample | {"images": [picture]}

    async def caption(sample, run):
        return sample | {"text": (await run.models.ask(Question())).text}

    async def check(sample, run):
        return sample | {"verdict": (await run.models.ask(Question("check"))).text}

    def converse(sample, run):
        content = [{"type": "image"}, {"type": "text", "text": "O que se vê?"}]
        turns = [{"role": "user", "content": content}, {"role": "assistant", "content": sample["text"]}]
        return {"messages": turns, "images": sample["images"]}

    return [records, load, caption, check, converse]


def settings(folder: Path, records: int, image_kb: int, model_seconds: float, workers: int = 1):
    """A run's configuration."""
    base = OmegaConf.load(Path(__file__).parents[1] / "conf" / "data_prep" / "common" / "engine.yaml")
    own = {"name": "benchmark", "pipeline": "benchmarks.data_engine", "run_dir": str(folder / "run")}
    own |= {"out": str(folder / "out"), "records": records, "image_kb": image_kb, "model_seconds": model_seconds}
    own |= {"executor": {"name": "local", "workers": workers, "tasks": 0}, "records_per_chunk": 128}
    return OmegaConf.merge(base, own, {"concurrency": CONCURRENCY, "progress_seconds": 3600})


def overhead(records: int, image_kb: int) -> tuple[float, float, float]:
    """CPU ms a sample: (steps alone, with the engine, counting again and reading for the shards)."""
    with tempfile.TemporaryDirectory() as name:
        conf = settings(Path(name), records, image_kb, 0.0)
        module, phases = load_phases(conf)
        folder = RunFolder(conf)
        begun = folder.begin(conf, "benchmark")
        start = time.process_time()
        asyncio.run(_alone(phases[0], Sleeper(0.0)))
        alone = time.process_time() - start
        start = time.process_time()
        place = folder.phase(phases[0])
        plan_source(phases[0], place, conf)
        asyncio.run(Task(conf, phases, 0, "benchmark", Pulse(place, 0)).run(Sleeper(0.0), 0, 1))
        made = time.process_time() - start
        start = time.process_time()
        check_phase(phases[0], place, conf.records_per_chunk)
        assert sum(1 for _ in _samples(conf, begun, place)) == records
        counted = time.process_time() - start
    return tuple(1000 * seconds / records for seconds in (alone, made, counted))


async def _alone(phase, sleeper) -> None:
    for record in phase.source():
        sample = record
        for step in phase.steps:
            result = step.call(sample, Run(0, step.name, "key", sleeper))
            sample = await result if step.is_async else result


def throughput(records: int, image_kb: int, workers: int) -> tuple[float, float]:
    """(samples a second while tasks work, seconds of the whole run, shards written and indexed)."""
    with tempfile.TemporaryDirectory() as name:
        conf = settings(Path(name), records, image_kb, MODEL_SECONDS, workers)
        _, phases = load_phases(conf)
        folder = RunFolder(conf)
        folder.begin(conf, "benchmark")
        start = time.perf_counter()
        run_local(conf, phases, "benchmark", lambda text: None)
        whole = time.perf_counter() - start
        live = [json.loads(path.read_text()) for path in (folder.phase(phases[0]).path / "live").glob("[0-9]*.json")]
        rate = sum(task["records"] / (task["updated"] - task["started"]) for task in live)
        assert finish(conf, phases)["shards"]["samples"] == records
    return rate, whole


def main() -> None:
    """Prints both tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=2000, help="of the overhead table")
    parser.add_argument("--throughput-records", type=int, default=1024)
    parser.add_argument("--image-kb", type=int, default=100)
    arguments = parser.parse_args()
    rows = []
    for image_kb in (1, arguments.image_kb):
        alone, made, counted = overhead(arguments.records, image_kb)
        rows.append((f"| {image_kb} kB |", f"{alone:.3f} |", f"{made - alone:.3f} |", f"{counted:.3f} |"))
    print(table(("| image |", "steps alone, ms |", "engine, ms |", "counting and reading, ms |"), rows), "\n")
    ideal = CONCURRENCY / (2 * MODEL_SECONDS)
    rows = []
    for workers in (1, 2):
        rate, whole = throughput(arguments.throughput_records, arguments.image_kb, workers)
        share = f"{100 * rate / (workers * ideal):.0f} % |"
        rows.append((f"| {workers} |", f"{rate:.1f} |", share, f"{whole:.1f} |"))
    print(table(("| workers |", "samples/s |", "of what the model allows |", "whole run, s |"), rows))


if __name__ == "__main__":
    sys.exit(main())
