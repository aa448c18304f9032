"""`amalia reference` on the launching side: settings of the stage dpo that will read it, and ranks. No Megatron."""

from __future__ import annotations

from pathlib import Path

from nemo_amalia.config.schema import RunConfig
from nemo_amalia.config.validation.ranges import check_ranges
from nemo_amalia.config.validation.run import model_ranks, validate
from nemo_amalia.training.job.environment import array_turn
from nemo_amalia.training.launch.train import check_places, default_ranks, start_ranks
from nemo_amalia.training.reference.file import default_path
from nemo_amalia.utils.errors import ConfigError

MODULE = "nemo_amalia.training.reference_main"


def reference_overrides(checkpoint: Path, data: Path, out: Path | None, overrides: list[str]) -> list[str]:
    """The settings of a stage dpo that starts from ``checkpoint``.

    The logs go to FILE.logs, a folder a job of an array. A stage=... among the overrides takes the place of stage=dpo.
    """
    out = out or default_path(data)
    own = [] if any(word.startswith("stage=") for word in overrides) else ["stage=dpo"]
    own += [f"model.checkpoint={checkpoint}", f"data.path={data}", f"stage.reference_file={out}"]
    logs = out.with_name(out.name + ".logs")
    job, jobs = array_turn()
    return [*own, f"run_dir={logs / f'job-{job}' if jobs > 1 else logs}", *overrides]


def settle_batch(run: RunConfig, world_size: int) -> None:
    """There is no batch: one pack a replica fits every number of ranks."""
    run.stage.global_batch_size = run.stage.micro_batch_size * max(1, world_size // model_ranks(run))


def launch_reference(run: RunConfig, overrides: list[str]) -> int:
    """Validate, start the ranks under torchrun and wait; returns their exit code. Raises ConfigError first."""
    check_ranges(run)
    if Path(run.stage.reference_file).exists():
        raise ConfigError(f"{run.stage.reference_file} is there already: delete it, or name another with --out")
    ranks = default_ranks(run)
    settle_batch(run, ranks)
    validate(run, ranks)
    check_places(run)
    return start_ranks(run, ranks, MODULE, overrides)
