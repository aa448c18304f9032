"""`amalia doctor`: what this machine has, what is missing, and the command that mends it. Imports no torch.

With ``container``: every import, too, as the last step of a container's build.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from nemo_amalia.cluster.doctor.requirements import CONTAINER_ONLY, installed_version, requirements
from nemo_amalia.utils.text import one_line

OK, MISSING, NOTE = "ok", "MISSING", "note"
SETUP = "make setup"
#: What a run imports, in the order in which it does; checked in a container, where a wrong build shows only so.
IMPORTS = (
    "torch",
    "torchvision",
    "transformer_engine.pytorch",
    "apex",
    "nvidia.dali",
    "megatron.core",
    "megatron.bridge",
    "megatron.energon",
    "nemo.core.config",
    "transformers",
    "nemo_amalia.training.run",
    "nemo_amalia.model.provider",
    "nemo_amalia.bridge.llava_next",
)
#: program -> (what it is for, Debian's package; empty where the machine's owner installs it)
PROGRAMS = {
    "sbatch": ("slurm/ and tests/slurm", "slurm-wlm"),
    "shellcheck": ("tests of slurm/", "shellcheck"),
    "chromium": ("tests of the report's page", "chromium"),
    "singularity": ("slurm/sites/marenostrum5.sh", ""),
    "enroot": ("slurm/sites/dgx.sh", ""),
}


@dataclass
class Finding:
    """One line of the report. state: OK, MISSING (the exit code says so, too) or NOTE; mend: a command or ''."""

    state: str
    what: str
    mend: str = ""


def examine(container: bool = False) -> int:
    """Print the report; 0, or 1 where something is missing that training needs."""
    findings = [python(), *packages(container), editable(), gpu(), *programs()]
    if container:
        findings += imports()
    print(report(findings))
    return int(any(finding.state == MISSING for finding in findings))


def report(findings: list[Finding]) -> str:
    """Lines: what is missing stands last, where it is seen."""
    order = {OK: 0, NOTE: 1, MISSING: 2}
    lines = []
    for finding in sorted(findings, key=lambda finding: order[finding.state]):
        lines.append(f"{finding.state:<8} {finding.what}" + (f": {finding.mend}" if finding.mend else ""))
    missing = sum(finding.state == MISSING for finding in findings)
    return "\n".join([*lines, f"{missing} missing" if missing else "everything that training needs is here"])


def python() -> Finding:
    """The interpreter's version, which megatron-bridge fixes."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 12):
        return Finding(OK, f"Python {version}")
    return Finding(MISSING, f"Python 3.12 (this is {version})", "make setup PYTHON=/path/to/python3.12")


def packages(container: bool) -> list[Finding]:
    """Every pin of pyproject.toml. What a container brings itself is said, and right as it is, but for a few."""
    found, right = [], 0
    for need in requirements():
        lacks = need.installed is None
        if need.fits:
            right += 1
        elif need.extra:
            what = f"{need.name} {need.pin}" + ("" if lacks else f" ({need.seen})")
            found.append(Finding(NOTE, f"{what}, for the extra {need.extra}", f"uv pip install -e '.[{need.extra}]'"))
        elif container and need.fits_container:
            found.append(Finding(NOTE, f"{need.name} {need.installed} of the container; pinned elsewhere: {need.pin}"))
        else:
            found.append(Finding(MISSING, f"{need.name} {need.pin} ({need.seen})", need.mend if container else SETUP))
    for name in CONTAINER_ONLY:
        version = installed_version(name)
        if version:
            found.append(Finding(OK, f"{name} {version}"))
        elif container:
            found.append(Finding(MISSING, name, "build on NVIDIA's NeMo container (Dockerfile.nemo)"))
        else:
            found.append(Finding(NOTE, f"no {name}: fine on a CPU; a GPU wants the container (docs/cluster.md)"))
    return [Finding(OK, f"{right} packages as pinned"), *found]


def editable() -> Finding:
    """conf/ is found beside the package alone."""
    from nemo_amalia.config.compose import CONF

    if (CONF / "config.yaml").is_file():
        return Finding(OK, f"nemo_amalia with its conf/ at {CONF.parent}")
    return Finding(MISSING, f"conf/ at {CONF}", "uv pip install -e . in the repository")


def gpu() -> Finding:
    """What the driver says, without loading torch."""
    if shutil.which("nvidia-smi") is None:
        return Finding(NOTE, "no NVIDIA driver: runs go to the CPU, over Gloo")
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return Finding(MISSING, "nvidia-smi gives no answer in 20 s", "restart the driver, or the machine")
    if done.returncode:
        return Finding(NOTE, f"nvidia-smi sees no GPU: {done.stdout.strip() or done.stderr.strip()}")
    cards = done.stdout.strip().splitlines()
    return Finding(OK, f"{len(cards)} x {cards[0]}")


def programs() -> list[Finding]:
    """Programs that parts of the repository use; none is needed to train."""
    found = []
    for name, (use, package) in PROGRAMS.items():
        if shutil.which(name):
            found.append(Finding(OK, name))
        else:
            found.append(Finding(NOTE, f"no {name} ({use})", f"apt-get install {package}" if package else ""))
    return found


def imports() -> list[Finding]:
    """Import what a run imports; the traceback of what does not go to stderr."""
    from nemo_amalia.platform import prepare

    os.environ.setdefault("MPLCONFIGDIR", str(Path("/tmp") / "matplotlib"))
    prepare()
    found = []
    for name in IMPORTS:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # whatever a broken build raises
            traceback.print_exc()
            text = f"{type(error).__name__}: {one_line(error, 200)}"
            found.append(Finding(MISSING, f"import {name}: {text}"))
            continue
        found.append(Finding(OK, f"import {name} {getattr(module, '__version__', '')}".strip()))
    return found
