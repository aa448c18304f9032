"""conf/ and the command line -> RunConfig, with the nearest known name beside every unknown one."""

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_amalia.config.overrides import KEYS, check_value, known_keys, refuse_unknown
from nemo_amalia.config.schema import RENAMED, RunConfig
from nemo_amalia.utils.errors import ConfigError
from nemo_amalia.utils.hydra_words import explained, refuse_unreadable

# Beside the package: an editable install, as `make setup` does it, is the only one that finds conf/.
CONF = Path(__file__).resolve().parents[2] / "conf"
SCHEMA = "nemo_amalia/config/schema.py"  # where an error sends who looks for a key


def _refuse_renamed(key: str, assigned: str) -> None:
    if key in RENAMED:
        new = RENAMED[key]
        raise ConfigError(f"{key} is called {new}: write {shlex.quote(new + assigned)}")


# Folders of conf/ that are no part of a run: what comes of them is data.path.
APART = {
    "mix": "mix= belongs to `amalia data mix`: write its blend with out=FILE, train on data.path=FILE",
    "data_prep": "data_prep= belongs to no run: make data with `amalia-data NAME run`, train on data.path=FOLDER",
}


def check_overrides(overrides: list[str]) -> None:
    """Refuse words that are not key=value, unknown keys, values of another type, and choices that conf/ does not have.

    Raises ConfigError, before Hydra would, with a remedy.
    """
    groups, of_keys = {folder.name for folder in CONF.iterdir() if folder.is_dir()}, []
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
            _refuse_renamed(key, equals + value)
            refuse_unknown(key)
            of_keys.append(word)
    refuse_unreadable(overrides)
    for word in of_keys:
        check_value(word)
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
        run = None if missing else OmegaConf.to_object(values)
    except OmegaConfBaseException as error:
        raise ConfigError(_explained(error, overrides)) from error
    if missing:
        raise ConfigError(f"no value for {', '.join(missing)}: add {missing[0]}=... to the command")
    return run


def _explained(error: Any, overrides: Sequence[str]) -> str:
    """What composing raised, in our words: by the key's own type where it is known."""
    from omegaconf.errors import ValidationError

    cause = error.__cause__ or error
    if isinstance(cause, ValidationError) and cause.full_key in KEYS:
        return f"{cause.full_key} has a value that is not of its type: {KEYS[cause.full_key].remedy()}"
    return explained(error, overrides, known_keys(), SCHEMA)


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
            raise ConfigError(_explained(error, overrides)) from error
    return to_run_config(values, overrides)
