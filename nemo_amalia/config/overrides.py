"""The words of a command line, key=value: refused in our own words before Hydra would in its own."""

from __future__ import annotations

from nemo_amalia.config.key import Key, keys_of
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.utils.errors import ConfigError
from nemo_amalia.utils.hydra_words import unknown_key

KEYS = {key.name: key for key in keys_of(RunConfig)}
SECTIONS = {name[:at] for name in KEYS for at, letter in enumerate(name) if letter == "."}


def known_keys() -> list[str]:
    """Every dotted key that the schema knows, and its sections."""
    return [*KEYS, *sorted(SECTIONS)]


def refuse_unknown(key: str) -> None:
    """Raise ConfigError naming the nearest known key; nothing for a known one."""
    known = known_keys()
    if key not in known:
        top = ", ".join(one for one in known if "." not in one)
        raise ConfigError(unknown_key(key, known, f"known at the top: {top}"))


def check_value(word: str) -> None:
    """Raise ConfigError for a word of a known key whose value is of another type than the key's; it can be read.

    A value with ${...} is looked at when it is resolved.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    name, _, text = word.partition("=")
    if name.startswith(("+", "~")) and not name.startswith("++"):
        bare = name.lstrip("+~")
        raise ConfigError(f"{word}: {bare} is in every run; give it another value with {bare}=..., without {name[0]}")
    name = name.lstrip("+")
    if "${" not in text:
        _check_type(name, OverridesParser.create().parse_override(word).value(), word)


def _check_type(name: str, value: object, word: str) -> None:
    if name in KEYS:
        if not _converts(KEYS[name], value):
            raise ConfigError(f"{word}: {KEYS[name].remedy()}")
    elif not isinstance(value, dict):
        first = next(key for key in KEYS if key.startswith(f"{name}."))
        raise ConfigError(f"{word}: {name} has keys of its own: give those one by one, as {first}=...")
    else:
        for below, one in value.items():
            refuse_unknown(f"{name}.{below}")
            _check_type(f"{name}.{below}", one, word)


def _converts(key: Key, value: object) -> bool:
    """Whether OmegaConf takes a value for a key of this type, as `yes` for a bool and a number for a text."""
    from omegaconf import BooleanNode, FloatNode, IntegerNode, StringNode
    from omegaconf.errors import ValidationError

    if key.kind is list:
        return isinstance(value, list)
    if key.kind is bool and isinstance(value, int):
        return value in (0, 1)
    node = {bool: BooleanNode, int: IntegerNode, float: FloatNode, str: StringNode}[key.kind]
    try:
        node(value, is_optional=key.optional)
    except ValidationError:
        return False
    return True
