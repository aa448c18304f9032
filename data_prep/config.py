"""conf/data_prep/NAME.yaml and the command line -> a pipeline's configuration."""

from __future__ import annotations

import difflib
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nemo_amalia.utils.errors import ConfigError
from nemo_amalia.utils.hydra_words import explained, refuse_unreadable

# Beside the package: an editable install is the only one that finds conf/ (as nemo_amalia/config/compose.py).
CONF = Path(__file__).resolve().parents[1] / "conf" / "data_prep"
PIPELINES = Path(__file__).resolve().parent / "pipelines"


def names() -> list[str]:
    """The data sets that have a configuration and a pipeline."""
    return sorted(path.stem for path in CONF.glob("*.yaml") if (PIPELINES / path.stem / "pipeline.py").is_file())


def compose(name: str, overrides: list[str]) -> Any:
    """A DictConfig. Raises ConfigError, in one line, on a name, key or choice that is not there, or has no value."""
    from omegaconf import OmegaConf

    return checked(compose_unchecked(name, overrides), OmegaConf)


def compose_unchecked(name: str, overrides: list[str]) -> Any:
    """As compose, but keys may lack a value, or have one that makes no sense."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names())}"
        raise ConfigError(f"no data set is called {name!r}: {hint}")
    for word in overrides:
        if "=" not in word:
            raise ConfigError(f"{word!r} is not an override: write key=value, as in seed=1 or executor=slurm")
        key, _, value = word.partition("=")
        choices = sorted(path.stem for path in (CONF / key).glob("*.yaml")) if key.isidentifier() else []
        if choices and value not in choices:
            near = difflib.get_close_matches(value, choices, n=1, cutoff=0.3)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"{word}: conf/data_prep/{key} has {', '.join(choices)}{hint}")
    _without_plugins()
    refuse_unreadable(overrides)
    conf = _composed(name, overrides)
    _check_kinds(conf, settings(name))
    return conf


def _check_kinds(conf: Any, own: Mapping[str, Any]) -> None:
    """Raise ConfigError for a value in place of a section, and for a folder or a module that is not text."""
    for key, default in own.items():
        if isinstance(default, dict) and not isinstance(conf[key], Mapping):
            below = ", ".join(f"{key}.{name}=" for name in default)
            raise ConfigError(f"{key}={conf[key]}: expected a section, whose settings are {below}")
    for key in ("name", "pipeline", "run_dir", "out", "answers"):
        if not isinstance(conf[key], str) and (key, conf[key]) != ("pipeline", None):
            raise ConfigError(f"{key}={conf[key]}: expected text, in quotes where it is a number: {key}=\"'1'\"")


def _composed(name: str, overrides: list[str]) -> Any:
    _without_plugins()
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            conf = hydra_compose(name, overrides=overrides)
        OmegaConf.to_container(conf, resolve=True)  # every ${...} now, where its error names the key
        return conf
    except (HydraException, OmegaConfBaseException) as error:
        known = list(dotted_keys(_composed(name, []))) if overrides else []
        raise ConfigError(explained(error, overrides, known, f"conf/data_prep/{name}.yaml")) from error


def checked(conf: Any, library: Any) -> Any:
    """The configuration, once the engine's own values make sense. Raises ConfigError naming the first that does not."""
    demand(library.missing_keys(conf))
    least = {"records_per_chunk": 1, "samples_per_shard": 1, "concurrency": 1, "limit": 0, "seed": 0}
    for name, smallest in {**least, "executor.workers": 1, "executor.tasks": 0}.items():
        value = library.select(conf, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
            raise ConfigError(f"{name}={value}: expected a whole number of at least {smallest}")
    if not isinstance(conf.max_model_errors, int | float) or not 0 <= conf.max_model_errors <= 1:
        raise ConfigError(f"max_model_errors={conf.max_model_errors}: expected a share, 0 to 1")
    return conf


def demand(missing: Iterable[str]) -> None:
    """Raises ConfigError where a key has no value."""
    if missing := sorted(missing):
        raise ConfigError(f"no value for {', '.join(missing)}: add {missing[0]}=... to the command")


def fill(conf: Any, overrides: list[str], settings: Mapping[str, Any]) -> None:
    """Gives `conf` a run's own settings (dotted name -> value), but for what the command line says; how it is executed
    may stay without a value. Raises ConfigError where another key does.
    """
    from omegaconf import OmegaConf

    said = [word.partition("=")[0].lstrip("+~").partition("@")[0].replace("/", ".") for word in overrides]
    OmegaConf.set_struct(conf, False)
    for name, value in settings.items():
        if not any(f"{name}.".startswith(f"{key}.") for key in said):
            OmegaConf.update(conf, name, value)
    demand(key for key in OmegaConf.missing_keys(conf) if not key.startswith("executor."))


def _without_plugins() -> None:
    """Hydra looks for plugins and would find the storage client that Energon brings: 1.3 s of imports, for launchers
    and search paths that nothing here uses.
    """
    if "hydra_plugins" not in sys.modules:
        sys.modules["hydra_plugins"] = types.ModuleType("hydra_plugins")
        sys.modules["hydra_plugins"].__path__ = []


def dotted_keys(conf: Any) -> Iterator[str]:
    """Every key of a DictConfig, dotted."""
    from omegaconf import OmegaConf

    return _dotted(OmegaConf.to_container(conf, throw_on_missing=False))


def _dotted(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")


@cache
def settings(name: str) -> dict[str, Any]:
    """The content of conf/data_prep/NAME.yaml as lists and dicts. Raises ConfigError naming the files there are."""
    import yaml

    path = CONF / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"no conf/data_prep/{name}.yaml: there are {', '.join(sorted(p.stem for p in CONF.glob('*.yaml')))}"
        )
    return yaml.safe_load(path.read_text(encoding="utf-8"))
