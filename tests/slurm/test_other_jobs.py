"""slurm/export.sh and slurm/reference.sh on a real Slurm, and the end of a job that comes no further."""

import sys
import time
from pathlib import Path

import pytest
from launcher import launch
from slurm_cluster import INSTALL, Cluster, missing
from slurm_jobs import ROOT, WORDS, Job
from slurm_jobs import prepare_inputs as prepare_training

from nemo_amalia.training.reference.file import parts_folder, read_table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing()), reason=f"Slurm is not installed ({', '.join(missing())}): {INSTALL}"),
]
PAIRS, SHARDS = 24, 4
LAPTOP = ["--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1"]


def prepare_pairs(folder):
    import tiny_hf
    from tiny_shards import preferences

    from nemo_amalia.bridge.import_hf import import_checkpoint
    from nemo_amalia.data.shards.write import write_shards

    here = Path(folder)
    import_checkpoint(hf=tiny_hf.llava_next(here / "source"), vision=None, llm=None, out=here / "checkpoint")
    write_shards(preferences(PAIRS), here / "pairs", samples_per_shard=PAIRS // SHARDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("jobs")
    launch(prepare_pairs, 1, {"folder": str(place)})
    return place


def submit(cluster, folder, script, *words, options=()):
    """From another folder than the repository, as AMALIA_ROOT allows."""
    cluster.environment |= {"AMALIA_PYTHON": sys.executable, "AMALIA_SITE": "bare", "OMP_NUM_THREADS": "1"}
    cluster.environment["AMALIA_ROOT"] = str(ROOT)
    command = ["sbatch", "--parsable", *LAPTOP, *options]
    return cluster.run(*command, ROOT / "slurm" / script, *words, cwd=folder).strip()


def ended(cluster, job, seconds=600):
    deadline = time.monotonic() + seconds
    while (state := cluster.job(job)["JobState"]) in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
        assert time.monotonic() < deadline, f"{job} is {state} after {seconds} s"
        time.sleep(1)
    return state


def test_export(folder, tmp_path):
    with Cluster(tmp_path / "cluster") as cluster:
        words = ["--checkpoint", folder / "checkpoint", "--out", folder / "hf"]
        job = submit(cluster, folder, "export.sh", *words)
        assert ended(cluster, job) == "COMPLETED", (folder / f"slurm-{job}.out").read_text()
    assert (folder / "hf" / "config.json").is_file() and list((folder / "hf").glob("*.safetensors"))
    assert "exported" in (folder / "runs" / "export" / f"job-{job}" / "logs" / "console.log").read_text()


def test_an_array_shares_the_reference(folder, tmp_path):
    """Each of two jobs makes half of the parts, on two tasks each; who finds all puts the file together, and leaves
    the parts: the other may be reading them.
    """
    out = folder / "pairs.reference.parquet"
    words = ["--checkpoint", folder / "checkpoint", "--data", folder / "pairs", "--out", out]
    words += ["precision=fp32", "parallel=tp2", "stage.seq_length=512", "data.num_workers=1"]
    options = ["--array=0-1", "--ntasks-per-node=2", "--gpus-per-node=2"]
    with Cluster(tmp_path / "cluster") as cluster:
        job = submit(cluster, folder, "reference.sh", *words, options=options)
        states = [ended(cluster, f"{job}_{member}", 900) for member in (0, 1)]
    said = [(folder / f"slurm-{job}_{member}.out").read_text() for member in (0, 1)]
    assert states == ["COMPLETED", "COMPLETED"], said
    table, _ = read_table(out, "")
    assert len(table) == len(set(table["key"].to_pylist())) == PAIRS
    assert len(list(parts_folder(out).glob("*.parquet"))) == SHARDS
    assert [f"job {member + 1} of 2" in said[member] for member in (0, 1)] == [True, True], said


def test_a_job_that_comes_no_further_is_given_up(tmp_path):
    """Killed before anything is saved, twice: the third start of AMALIA_ATTEMPTS=2 does not come."""
    launch(prepare_training, 1, {"folder": str(tmp_path)})
    words = [*WORDS, f"model.checkpoint={tmp_path}/checkpoint", f"data.path={tmp_path}/data", "parallel=tp2"]
    words += ["stage.train_steps=400", "checkpoint.save_interval=400"]
    with Cluster(tmp_path / "cluster", nodes=3) as cluster:
        cluster.environment["AMALIA_ATTEMPTS"] = "2"
        job = Job(cluster, tmp_path / "run", words, tasks_per_node=1, preflight=False)
        job.until_step(1)
        job.kill_rank(1)
        job.until_requeued()
        assert "requeued: goes on after step 0" in job.said()
        job.until(lambda: job.state() == "RUNNING", 120, "second start")
        before = job.said().count("[sft] step ")
        job.until(lambda: job.said().count("[sft] step ") > before, 400, "step of the second start")
        job.kill_rank(1)
        assert job.until_ended(120) == "FAILED"
    assert "[job] given up: 2 starts in a row saved nothing new after step 0" in job.said(), job.said()
