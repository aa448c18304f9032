"""What a site's sbatch asks for, by asking a Slurm whose nodes have that machine's shape. No job runs."""

import pytest
from slurm_cluster import INSTALL, Cluster, missing
from slurm_jobs import ROOT

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"Slurm is not installed ({', '.join(missing())}): {INSTALL}")
SCRIPTS = {"stage1_8gpu": 8, "stage2_128gpu": 128, "stage3_64gpu": 64, "reference": 8, "export": 1, "evaluate": 1}


@pytest.fixture(scope="module")
def marenostrum5(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("mn5"), nodes=2, cpus=80, gpus=4) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def dgx(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("dgx"), nodes=1, cpus=112, gpus=8) as cluster:
        yield cluster


def submitted(cluster, script, before, *options):
    """Fields of the job that `sbatch slurm/SCRIPT.sh` makes, held so that it never starts."""
    command = f"{before} sbatch --parsable --hold {' '.join(options)} slurm/{script}.sh run_dir=/nowhere"
    number = cluster.run("bash", "-c", command, cwd=ROOT).strip()
    job = cluster.job(number)
    cluster.run("scancel", number)
    return job


@pytest.mark.parametrize(("script", "gpus"), [(name, gpus) for name, gpus in SCRIPTS.items() if gpus <= 8])
def test_marenostrum5_gets_nodes_of_four(marenostrum5, script, gpus):
    site = ". slurm/sites/marenostrum5.sh;"
    job = submitted(marenostrum5, script, f"export AMALIA_ACCOUNT=a AMALIA_QOS=normal; {site}")
    assert job["NumTasks"] == str(gpus) and job["NumNodes"].split("-")[0] == str(max(1, gpus // 4))
    assert job["CPUs/Task"] == "20" and job["TresPerNode"] == f"gres:gpu:{min(gpus, 4)}"


@pytest.mark.parametrize(("script", "gpus"), [(name, gpus) for name, gpus in SCRIPTS.items() if gpus <= 8])
def test_a_dgx_gets_nodes_of_eight(dgx, script, gpus):
    job = submitted(dgx, script, "")
    assert job["NumTasks"] == str(gpus) and job["NumNodes"].split("-")[0] == "1"
    assert job["TresPerNode"] == f"gres:gpu:{min(gpus, 8)}"


def test_data_is_made_without_gpus(marenostrum5, dgx):
    for cluster, site in ((marenostrum5, "export AMALIA_ACCOUNT=a; . slurm/sites/marenostrum5.sh;"), (dgx, "")):
        job = submitted(cluster, "data_prep", site)
        assert (job["NumNodes"].split("-")[0], job["NumTasks"], job["CPUs/Task"]) == ("1", "1", "32")
        assert "gpu" not in job.get("TresPerNode", "") and job["Requeue"] == "1"


def test_options_of_the_user_win(marenostrum5):
    site = "export AMALIA_ACCOUNT=a AMALIA_QOS=normal; . slurm/sites/marenostrum5.sh;"
    job = submitted(marenostrum5, "stage2_128gpu", site, "--nodes=1", "--time=00:10:00")
    assert job["NumNodes"].split("-")[0] == "1" and job["TimeLimit"] == "00:10:00"


def test_marenostrum5_wants_an_account(marenostrum5):
    with pytest.raises(RuntimeError, match="AMALIA_ACCOUNT: your project"):
        submitted(marenostrum5, "stage1_8gpu", ". slurm/sites/marenostrum5.sh;")
