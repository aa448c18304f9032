"""`amalia doctor`: pins against what is installed, the command that mends it, and which node is bad."""

import subprocess
import sys
from pathlib import Path

import pytest

from nemo_amalia.cluster.doctor import machine as doctor
from nemo_amalia.cluster.doctor import requirements as pins
from nemo_amalia.cluster.doctor.machine import MISSING, NOTE, Finding, packages, report
from nemo_amalia.cluster.doctor.nodes import CLOCK_SECONDS, NodeFacts, judge, write_speed
from nemo_amalia.cluster.doctor.requirements import Requirement, requirements
from nemo_amalia.utils.errors import EnvironmentProblem

ROOT = Path(__file__).resolve().parents[4]


def test_every_pin_of_pyproject_is_read():
    found = {need.name: need for need in requirements()}
    assert found["torch"].installed is not None and found["torch"].fits
    assert found["wandb"].extra == "wandb" and found["pytest"].extra == "dev"
    assert all(need.pin for need in found.values())


@pytest.mark.parametrize(
    "version", ["2.11.0", "2.11.0+cu130", "2.11.0a0+nv26.08", "2.11.0.post1", "2.11.0rc2", "2.11", "v2.11.0-alpha"]
)
def test_a_build_tag_is_no_other_release(version):
    need = Requirement("torch", "2.11.0", "", version)
    assert need.fits and need.fits_container and need.seen == f"installed: {version}"


@pytest.mark.parametrize("version", ["2.11.1", "2.12.0a0+nv26.12", "1!2.11.0", "2.110"])
def test_another_release_is_another(version):
    assert not Requirement("torch", "2.11.0", "", version).fits


def test_a_version_that_is_no_number_is_said_in_words(monkeypatch):
    strange = Requirement("transformers", "5.12.1", "", "main-2026")
    assert not strange.fits and not strange.fits_container
    monkeypatch.setattr(doctor, "requirements", lambda: [strange])
    for container in (False, True):
        found = packages(container)
        [finding] = [one for one in found if "transformers" in one.what]
        assert finding.state == MISSING
        assert finding.what == "transformers 5.12.1 (installed: main-2026, which is not a version number)"


@pytest.mark.parametrize("line", ["torch", "torch>=2", "torch==2.*", "torch==2,==3", "torch==", "=="])
def test_a_line_that_is_no_pin_is_refused(monkeypatch, tmp_path, line):
    file = tmp_path / "pyproject.toml"
    file.write_text(f'[project]\ndependencies = ["{line}"]\n[project.optional-dependencies]\n')
    monkeypatch.setattr(pins, "PYPROJECT", file)
    with pytest.raises(EnvironmentProblem, match="expected one pinned version, as in name==1.2.3") as info:
        requirements()
    assert repr(line) in str(info.value) and "\n" not in str(info.value)


def test_a_pin_may_have_an_extra_and_a_marker(monkeypatch, tmp_path):
    file = tmp_path / "pyproject.toml"
    line = "uvicorn[standard] == 25.1rc1 ; python_version >= '3.12'"
    file.write_text(f'[project]\ndependencies = ["{line}"]\n[project.optional-dependencies]\n')
    monkeypatch.setattr(pins, "PYPROJECT", file)
    [need] = requirements()
    assert (need.name, need.pin) == ("uvicorn", "25.1rc1")


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
        ("gpu_name", "", "sees no GPU, the others do"),
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
