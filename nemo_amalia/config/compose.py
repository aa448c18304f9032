"""conf/ and the command line -> RunConfig, with the nearest known name beside every unknown one."""

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_amalia.config.schema import RunConfig
from nemo_amalia.utils.errors import ConfigError
from nemo_amalia.utils.overrides import explained, refuse_unreadable

# Beside the package: an editable install, as `make setup` does it, is the only one that finds conf/.
CONF = Path(__file__).resolve().parents[2] / "conf"
SCHEMA = "nemo_amalia/config/schema.py"  # where an error sends who looks for a key


def known_keys(schema: type = RunConfig, prefix: str = "") -> list[str]:
    """Every dotted key that the schema knows."""
    keys = []
    for item in dataclasses.fields(schema):
        keys.append(prefix + item.name)
        if dataclasses.is_dataclass(item.type):
            keys += known_keys(item.type, f"{prefix}{item.name}.")
    return keys


def refuse_unknown(key: str) -> None:
    """Raise ConfigError naming the nearest known key; nothing for a known one."""
    known = known_keys()
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known at the top: {', '.join(k for k in known if '.' not in k)}"
    raise ConfigError(f"unknown config key {key!r}: {hint}")


# Folders of conf/ that are no part of a run: what comes of them is data.path.
APART = {
    "mix": "mix= belongs to `amalia data mix`: write its blend with out=FILE, train on data.path=FILE",
    "data_prep": "data_prep= belongs to no run: make data with `amalia-data NAME run`, train on data.path=FOLDER",
}


def check_overrides(overrides: list[str]) -> None:
    """Refuse words that are not key=value, unknown keys, and choices that conf/ does not have.

    Raises ConfigError, before Hydra would, with a remedy.
    """
    groups = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is not an override: write key=value, as in stage=sft or data.path=FOLDER")
        key = key.lstrip("+~")
        if not key:
            raise ConfigError(f"{word!r} has no key before the =: write key=value, as in stage=sft")
        if key in APART:
            raise ConfigError(APART[key])
        if key in groups:
            choices = sorted(path.stem for path in (CONF / key).glob("*.yaml"))
            if value not in choices:
                near = difflib.get_close_matches(value, choices, n=1, cutoff=0.3)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise ConfigError(f"{key}={value}: conf/{key} has {', '.join(choices)}{hint}")
        elif not key.startswith("hydra"):
            refuse_unknown(key)
    refuse_unreadable(overrides)
    given = {word.lstrip("+").partition("=")[0] for word in overrides if not word.endswith(("=null", "=None"))}
    if {"stage.train_steps", "stage.epochs"} <= given:
        raise ConfigError("stage.train_steps and stage.epochs are both given: leave one of them out")


def register_schema() -> None:
    """Tell Hydra the schema, which conf/config.yaml starts from. Idempotent."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="run_schema", node=RunConfig)


def to_run_config(values: Any, overrides: Sequence[str] = ()) -> RunConfig:
    """Hydra's values as a RunConfig. Raises ConfigError naming the key that has no value or the wrong type."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        missing = sorted(OmegaConf.missing_keys(values))
        if missing:
            raise ConfigError(f"no value for {', '.join(missing)}: add {missing[0]}=... to the command")
        return OmegaConf.to_object(values)
    except OmegaConfBaseException as error:
        raise ConfigError(explained(error, overrides, known_keys(), SCHEMA)) from error


def compose(overrides: list[str]) -> RunConfig:
    """The run that ``amalia train OVERRIDES`` describes. Loads Hydra, nothing heavier.

    Raises ConfigError with one clear line for whatever does not fit.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    check_overrides(overrides)
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            values = hydra_compose("config", overrides=overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explained(error, overrides, known_keys(), SCHEMA)) from error
    return to_run_config(values, overrides)
