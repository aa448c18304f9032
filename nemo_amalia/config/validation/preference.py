"""Settings of stage dpo that cannot be meant; called by validate. Reads no files."""

from __future__ import annotations

from nemo_amalia.config.schema import RunConfig
from nemo_amalia.utils.errors import ConfigError

WEIGHTS = ("preference_loss_weight", "quality_loss_weight", "sft_loss_weight")


def validate_preference(run: RunConfig) -> None:
    """Raise ConfigError with what was seen, what was expected and what to do."""
    p = run.stage.preference
    if p.label_smoothing and p.preference_loss == "ipo":
        raise ConfigError(
            f"stage.preference.label_smoothing is {p.label_smoothing} and ipo has none: set it to 0, or "
            "stage.preference.preference_loss to sigmoid or robust"
        )
    if not any(getattr(p, name) for name in WEIGHTS):
        raise ConfigError(f"stage.preference has {', '.join(WEIGHTS)} all 0: there is no loss; give one a weight")
    _reference(run)


def _reference(run: RunConfig) -> None:
    stage, pipeline = run.stage, run.parallel.pipeline
    if stage.reference != "in_memory":
        return
    if pipeline > 1:
        raise ConfigError(
            f"stage.reference=in_memory holds a second model whole and parallel.pipeline is {pipeline}: run `amalia "
            "reference` once and set stage.reference=precomputed, or set parallel.pipeline=1"
        )
    if stage.reference_file is not None:
        raise ConfigError(
            f"stage.reference_file is {stage.reference_file} and stage.reference=in_memory reads none: leave it out, "
            "or set stage.reference=precomputed"
        )
