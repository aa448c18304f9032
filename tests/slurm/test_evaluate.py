"""slurm/evaluate.sh: its words, and lmms-eval itself over an array of two jobs on a real Slurm."""

import importlib.util
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launcher import launch
from slurm_cluster import INSTALL, Cluster, missing
from slurm_jobs import ROOT

SAMPLES = 4
TASK = """task: {name}
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function pictures.visual
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{max_new_tokens: {new_tokens}, temperature: 0}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
VISUAL = """import io

from PIL import Image


def visual(doc):
    return [Image.open(io.BytesIO(doc["image"])).convert("RGB")]
"""


def refusal(*words):
    """What the script says before anything of Slurm is asked."""
    environment = {**os.environ, "AMALIA_ROOT": str(ROOT)}
    done = subprocess.run(
        ["bash", "slurm/evaluate.sh", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_words_are_checked_first(tmp_path):
    assert "no hf=..." in refusal("out=o")
    assert "it is no exported folder" in refusal(f"hf={tmp_path}", "out=o")
    (tmp_path / "config.json").write_text("{}")
    good = (f"hf={tmp_path}", "out=o")
    assert "no out=..." in refusal(good[0])
    assert "batch_size=4: expected hf=DIR out=DIR" in refusal(*good, "batch_size=4")
    assert "include_path=nowhere is no folder" in refusal(*good, "include_path=nowhere")
    assert "limit=all: expected a number" in refusal(*good, "limit=all")


def tiny_model(folder):
    import tiny_hf

    tiny_hf.llava_next(Path(folder))


def write_tasks(folder):
    """Two tasks on four noise pictures; of `raises_pt` every generation raises (a negative number of new tokens)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    folder.mkdir()
    rows = []
    for number in range(SAMPLES):
        picture = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 255, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(picture, "PNG")
        rows.append({"image": picture.getvalue(), "question": f"Qual é a cor {number}?", "answer": "azul"})
    pq.write_table(pa.Table.from_pylist(rows), folder / "data.parquet")
    (folder / "pictures.py").write_text(VISUAL)
    for name, new_tokens in (("works_pt", 4), ("raises_pt", -1)):
        text = TASK.format(name=name, data=folder / "data.parquet", new_tokens=new_tokens)
        (folder / f"{name}.yaml").write_text(text)


def submit(cluster, folder, *words, options=()):
    environment = {"AMALIA_PYTHON": sys.executable, "AMALIA_SITE": "bare", "OMP_NUM_THREADS": "1"}
    cluster.environment.update(environment, HF_HUB_OFFLINE="1", HF_HOME=str(folder / "cache"))
    command = ["sbatch", "--parsable", "--cpus-per-task=1", f"--output={folder}/%a.out", *options]
    return cluster.run(*command, "slurm/evaluate.sh", *words, cwd=ROOT).strip()


def ended(cluster, job, seconds):
    deadline = time.monotonic() + seconds
    while (state := cluster.job(job)["JobState"]) in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
        assert time.monotonic() < deadline, f"{job} is {state} after {seconds} s"
        time.sleep(1)
    return state


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(bool(missing()), reason=f"Slurm is not installed ({', '.join(missing())}): {INSTALL}")
@pytest.mark.skipif(
    importlib.util.find_spec("lmms_eval") is None, reason="lmms_eval is not installed: the extra evaluation"
)
def test_an_array_shares_the_tasks(tmp_path):
    launch(tiny_model, 1, {"folder": str(tmp_path / "hf")})
    write_tasks(tmp_path / "tasks")
    words = [f"hf={tmp_path}/hf", f"out={tmp_path}/out", f"include_path={tmp_path}/tasks", "device=cpu"]
    with Cluster(tmp_path / "cluster") as cluster:
        job = submit(cluster, tmp_path, *words, "tasks=works_pt,raises_pt", options=["--array=0-1"])
        states = [ended(cluster, f"{job}_{member}", 1200) for member in (0, 1)]
    said = [(tmp_path / f"{member}.out").read_text() for member in (0, 1)]
    assert states == ["COMPLETED", "FAILED"], said
    assert "1 of 1 tasks evaluated" in said[0], said[0]
    (results,) = (tmp_path / "out" / "works_pt").rglob("*_results.json")
    content = json.loads(results.read_text())
    assert (
        content["n-samples"]["works_pt"]["effective"] == SAMPLES
        and "exact_match,none" in content["results"]["works_pt"]
    )
    assert f"raises_pt: {SAMPLES} answers failed" in said[1] and "failed: raises_pt" in said[1], said[1]
