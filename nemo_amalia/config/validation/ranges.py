"""What no key may hold, by the schema's own ranges and choices: before any check that puts keys together."""

from __future__ import annotations

from nemo_amalia.config.key import keys_of, shown, value_of
from nemo_amalia.config.schema import MISSING, RunConfig
from nemo_amalia.utils.errors import ConfigError


def check_ranges(run: RunConfig) -> None:
    """Raise ConfigError for the first key whose value the schema does not allow, with what it may be."""
    for key in keys_of(RunConfig):
        value = value_of(run, key.name)
        if value == MISSING:
            raise ConfigError(f"no value for {key.name}: add {key.name}=... to the command")
        if not key.fits(value):
            seen = "empty" if isinstance(value, str) and not value.strip() else shown(value)
            raise ConfigError(f"{key.name} is {seen}: {key.remedy()}")
