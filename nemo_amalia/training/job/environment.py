"""What torchrun and Slurm say to a process through its environment. Imports nothing heavy."""

from __future__ import annotations

import os

ORPHAN_PATIENCE = 900.0  # seconds: NCCL's watchdog ends a rank that lost its peers after ten minutes


def inside_a_job() -> bool:
    """Whether torchrun or srun has started this process as one of several ranks.

    A batch script has SLURM_NTASKS, SLURM_PROCID and SLURM_LOCALID, too, and is no rank: only srun sets the tasks of a
    step.
    """
    return "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def slurm_environment() -> None:
    """Under srun without torchrun: Slurm's names of rank and world, as torch.distributed reads them."""
    names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS", "LOCAL_RANK": "SLURM_LOCALID"}
    if "SLURM_STEP_NUM_TASKS" not in os.environ:
        return
    for ours, theirs in names.items():
        if ours not in os.environ and theirs in os.environ:
            os.environ[ours] = os.environ[theirs]


def restart_patience() -> float:
    """Seconds to wait for a run_dir: what a lost node left behind of this job's earlier start ends by itself."""
    return ORPHAN_PATIENCE if int(os.environ.get("SLURM_RESTART_COUNT") or 0) else 0.0


def array_turn() -> tuple[int, int]:
    """(this job, all jobs) of a Slurm array; (0, 1) outside of one."""
    jobs = int(os.environ.get("SLURM_ARRAY_TASK_COUNT", 1))
    return int(os.environ.get("SLURM_ARRAY_TASK_ID", 0)) - int(os.environ.get("SLURM_ARRAY_TASK_MIN", 0)), jobs
