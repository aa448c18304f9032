"""Jobs of slurm/ on the tests' cluster: submit one, disturb it, and read what it wrote."""

import json
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = (
    "stage=sft_demo",
    "precision=fp32",
    "stage.seq_length=256",
    "stage.global_batch_size=4",
    "data.num_workers=1",
    "data.packing_buffer_size=8",
    "logging.interval=1",
)


def prepare_inputs(folder):
    """A tiny checkpoint, good shards, and shards of which one sample cannot be trained on."""
    import tiny_hf
    from tiny_shards import conversations

    from nemo_amalia.bridge.import_hf import import_checkpoint
    from nemo_amalia.data.shards.write import write_shards

    here = Path(folder)
    import_checkpoint(hf=tiny_hf.llava_next(here / "source"), vision=None, llm=None, out=here / "checkpoint")
    write_shards(conversations(80), here / "data", samples_per_shard=20)
    good = list(conversations(20))
    bad = dict(good[7], key="sem-imagem", images=[], messages=good[0]["messages"])
    write_shards([*good, bad], here / "bad", samples_per_shard=30)


def train_plain(words):
    """The same run in a rank of tests.launcher, with nothing of Slurm: what the jobs are compared with."""
    from nemo_amalia.config.compose import compose
    from nemo_amalia.training.job.console import Console
    from nemo_amalia.training.run import train

    run = compose(words)
    Path(run.run_dir).mkdir(parents=True, exist_ok=True)
    train(run, Console(run.run_dir, int(os.environ["RANK"])), "gloo")


def metrics(run_dir):
    """What has to be equal of every step: nothing that is a time."""
    file = Path(run_dir) / "metrics.jsonl"
    if not file.is_file():
        return []
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return [(r["step"], r["loss"], r["grad_norm"], r["tokens"], r["samples"]) for r in records]


class Job:
    """One job of slurm/stage2_128gpu.sh with a laptop's resources, from its submission on."""

    def __init__(self, cluster, run_dir, words, *, tasks_per_node, options=(), preflight=True):
        self.cluster, self.run_dir = cluster, Path(run_dir)
        self.output = self.run_dir.with_suffix(".out")
        settings = {
            "AMALIA_PYTHON": sys.executable,
            "AMALIA_SITE": "bare",
            "AMALIA_PREFLIGHT": "on" if preflight else "off",
            "OMP_NUM_THREADS": "1",
        }
        shape = ["--nodes=2", f"--ntasks-per-node={tasks_per_node}", f"--gpus-per-node={tasks_per_node}"]
        command = ["sbatch", "--parsable", *shape, "--cpus-per-task=1", f"--output={self.output}", *options]
        cluster.environment.update(settings)
        self.number = cluster.run(*command, "slurm/stage2_128gpu.sh", *words, f"run_dir={run_dir}", cwd=ROOT).strip()

    def said(self):
        return self.output.read_text() if self.output.is_file() else ""

    def state(self):
        return self.cluster.job(self.number)["JobState"]

    def until(self, holds, seconds, what):
        """Wait; an AssertionError shows what the job said."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"no {what} after {seconds} s:\n{self.said()[-5000:]}"
            time.sleep(0.2)

    def until_step(self, step, seconds=600):
        self.until(lambda: len(metrics(self.run_dir)) >= step or self.ended(), seconds, f"step {step}")
        assert len(metrics(self.run_dir)) >= step, self.said()[-5000:]

    def ended(self):
        return self.state() not in ("RUNNING", "PENDING", "COMPLETING", "CONFIGURING")

    def until_requeued(self, seconds=120):
        """It waits in the queue again; without the two minutes that Slurm gives a requeued job."""
        self.until(lambda: self.state() == "PENDING", seconds, "requeue")
        self.cluster.run("scontrol", "update", f"JobId={self.number}", "StartTime=now")

    def until_ended(self, seconds=600):
        self.until(self.ended, seconds, "end")
        return self.state()

    def rank(self, number):
        """Process id of a rank of the step that trains: the first of those with its place in Slurm's environment."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                values = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            mine = f"run_dir={self.run_dir}".encode() in words and b"--check" not in words
            if mine and f"SLURM_PROCID={number}".encode() in values and words[0].endswith(b"python"):
                found.append(int(process.name))
        return min(found)  # its data workers are younger

    def kill_rank(self, number):
        os.kill(self.rank(number), signal.SIGKILL)
