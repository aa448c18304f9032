"""`amalia doctor`: pins against what is installed, the command that mends it, and which node is bad."""

import subprocess
import sys
from pathlib import Path

import pytest

from nemo_amalia.cluster.doctor import machine as doctor
from nemo_amalia.cluster.doctor.machine import MISSING, NOTE, Finding, packages, report
from nemo_amalia.cluster.doctor.nodes import CLOCK_SECONDS, NodeFacts, judge, write_speed
from nemo_amalia.cluster.doctor.requirements import Requirement, release, requirements

ROOT = Path(__file__).resolve().parents[4]


def test_every_pin_of_pyproject_is_read():
    found = {need.name: need for need in requirements()}
    assert found["torch"].installed is not None and found["torch"].fits
    assert found["wandb"].extra == "wandb" and found["pytest"].extra == "dev"
    assert all(need.pin for need in found.values())


@pytest.mark.parametrize("version", ["2.11.0", "2.11.0+cu130", "2.11.0a0+nv26.08", "2.11.0.post1", "2.11.0rc2"])
def test_a_build_tag_is_no_other_release(version):
    assert release(version) == "2.11.0"


def test_what_is_missing_names_its_command(monkeypatch):
    needs = [
        Requirement("torch", "2.11.0", "", "2.10.0"),
        Requirement("s3fs", "2025.12.0", "", None),
        Requirement("wandb", "0.29.0", "wandb", None),
        Requirement("megatron-core", "0.19.2", "", "0.19.9"),
        Requirement("megatron-bridge", "0.6.2", "", "0.7.0"),
    ]
    monkeypatch.setattr(doctor, "requirements", lambda: needs)
    bare = {finding.what: finding for finding in packages(container=False)}
    assert bare["torch 2.11.0 (installed: 2.10.0)"] == Finding(
        MISSING, "torch 2.11.0 (installed: 2.10.0)", "make setup"
    )
    assert bare["s3fs 2025.12.0 (not installed)"].mend == "make setup"
    assert bare["wandb 0.29.0, for the extra wandb"].state == NOTE
    inside = {
        finding.what.split()[0]: finding
        for finding in packages(container=True)
        if finding.mend or "of the" in finding.what
    }
    assert inside["torch"].state == NOTE and inside["megatron-core"].state == NOTE  # the container's own
    assert inside["megatron-bridge"].state == MISSING  # another minor release is not what we were written for
    assert inside["s3fs"].mend == 'uv pip install "s3fs==2025.12.0"'
    assert inside["transformer-engine"].state == MISSING
    text = report(list(inside.values()))
    assert text.splitlines()[-1] == f"{sum(f.state == MISSING for f in inside.values())} missing"


def test_the_command_loads_no_torch():
    code = "import sys; from nemo_amalia.cli import main; code = main(['doctor']); assert 'torch' not in sys.modules; "
    done = subprocess.run([sys.executable, "-c", code + "sys.exit(code)"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "packages as pinned" in done.stdout


def nodes(*changes):
    """Facts of three good ranks, then changed."""
    found = [NodeFacts(r, f"h{r}", f"n{r}", 0.01 * r, 900.0, 500.0, "H100", {"torch": "2"}) for r in range(3)]
    for rank, field, value in changes:
        setattr(found[rank], field, value)
    return found


def test_good_nodes_pass():
    assert judge(nodes()) == ({}, "")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("seconds", CLOCK_SECONDS + 1, "clock is"),
        ("write_mb_s", 20.0, "writes 20 MB/s, the others 900"),
        ("versions", {"torch": "3"}, "has torch 3 (elsewhere 2)"),
        ("gpu", "", "sees no GPU, the others do"),
        ("fault", "GPU 3: an illegal memory access", "GPU 3"),
    ],
)
def test_one_bad_node_is_named(field, value, said):
    wrong, refusal = judge(nodes((1, field, value)))
    assert list(wrong) == [1] and said in wrong[1] and not refusal


def test_a_full_disk_is_nobodys_node():
    wrong, refusal = judge(nodes(*[(rank, "free_gb", 3.0) for rank in range(3)]))
    assert not wrong and refusal.startswith("run_dir has 3.0 GB free")


def test_write_speed_leaves_nothing_behind(tmp_path):
    speed, free = write_speed(tmp_path / "run")
    assert speed > 0 and free > 0 and not list((tmp_path / "run").iterdir())


def test_outside_of_ranks_it_says_how_to_start_it():
    done = subprocess.run(
        [sys.executable, "-m", "nemo_amalia.cli", "doctor", "--cluster"],
        capture_output=True, text=True, timeout=60, cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: amalia doctor --cluster looks at nodes from ranks")
