"""A real Slurm on this machine for the tests: slurmctld and a slurmd a node, in a folder of their own.

Nodes n1, n2, ... of 2 pretended GPUs share the machine. Daemons run as this user with
auth/none, so no munge and nothing outside the folder; a name other than root needs no more. Node failure is noticed in
seconds instead of minutes, which is the only setting a real cluster would not have.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from ports import free_ports

INSTALL = "apt-get install slurm-wlm"
NEEDED = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
# Of a node: slurmd believes in a GPU that is a device file.
DEVICES = [f"/dev/{name}" for name in "null zero full random urandom tty ptmx console".split()]


def missing() -> list[str]:
    """Programs of Slurm that this machine lacks."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    return [name for name in NEEDED if shutil.which(name, path=path) is None]


class Cluster:
    """Use as a context manager; ``environment`` makes Slurm's commands speak to it."""

    def __init__(self, folder: Path, nodes: int = 2, cpus: int = 4, gpus: int = 2):
        self.cpus, self.gpus = cpus, DEVICES[:gpus]
        self.folder, self.nodes = Path(folder), [f"n{number}" for number in range(1, nodes + 1)]
        self.config = self.folder / "slurm.conf"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "AMALIA_"))
        } | {"SLURM_CONF": str(self.config), "PATH": os.environ["PATH"] + ":/usr/sbin"}
        self._daemons: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "Cluster":
        for name in ("state", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.config.write_text(self._text())
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in self.gpus))
        try:
            self._start("slurmctld", ["slurmctld", "-D", "-f", str(self.config)])
            for node in self.nodes:
                self.start_node(node)
            self._until(self._ready, 30, "the nodes are not idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(RuntimeError):
            for job in self.jobs():
                self.run("scancel", job)
            self._until(lambda: not self.jobs(), 30, "jobs are still there")  # their processes outlive the daemons
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *words: str, check: bool = True, **options) -> str:
        """A command of Slurm; its stdout. Raises RuntimeError with its stderr."""
        done = subprocess.run(
            [str(w) for w in words], env=self.environment, capture_output=True, text=True, timeout=60, **options
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr}")
        return done.stdout

    def jobs(self) -> list[str]:
        """Ids of jobs that have not ended."""
        return self.run("squeue", "-h", "-o", "%A").split()

    def job(self, number: str) -> dict[str, str]:
        """Fields of `scontrol show job`."""
        words = self.run("scontrol", "show", "job", "-o", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def start_node(self, node: str) -> None:
        self._start(node, ["slurmd", "-D", "-f", str(self.config), "-N", node])

    def kill_node(self, node: str) -> None:
        """The node's daemon dies as in a crash; what it had started goes on without it."""
        daemon = self._daemons.pop(node)
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()

    def logs(self) -> str:
        """The end of every daemon's log, for a failed test."""
        files = sorted((self.folder / "log").glob("*.log"))
        return "\n".join(f"--- {f.name}\n" + "\n".join(f.read_text().splitlines()[-30:]) for f in files)

    def _start(self, name: str, command: list[str]) -> None:
        with open(self.folder / "log" / f"{name}.log", "ab") as log:
            self._daemons[name] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _ready(self) -> bool:
        states = self.run("sinfo", "-h", "-N", "-o", "%T", check=False).split()
        return states == ["idle"] * len(self.nodes)

    def _until(self, holds, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} after {seconds} s:\n{self.logs()}")
            time.sleep(0.2)

    def _text(self) -> str:
        user, host = os.environ.get("USER") or "root", socket.gethostname()
        control, *ports = free_ports(1 + len(self.nodes))
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus} RealMemory=8000 "
            f"Gres=gpu:{len(self.gpus)} State=UNKNOWN"
            for node, port in zip(self.nodes, ports, strict=True)
        )
        return f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool_%n
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd_%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdTimeout=15
KillWait=5
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
{nodes}
PartitionName=acc Nodes={",".join(self.nodes)} Default=YES MaxTime=INFINITE State=UP
"""
