"""`key=value` arguments that Hydra or OmegaConf does not take, in our words: what was seen, expected, what to do."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Sequence

from nemo_amalia.utils.errors import ConfigError
from nemo_amalia.utils.text import first_line, one_line

#: OmegaConf's kind of value -> what is written on a command line
KINDS = {
    "IntegerNode": "a whole number",
    "FloatNode": "a number",
    "BooleanNode": "true or false",
    "StringNode": "text",
    "ListConfig": "a list, as in [a,b]",
    "DictConfig": "settings below it, each as KEY.NAME=value",
}
PAIRS = {"(": ")", "[": "]", "{": "}"}


def refuse_unreadable(words: Iterable[str]) -> None:
    """Check that each `key=value` word can be read, and gives one value. Loads Hydra's parser, nothing heavier.

    Raises:
        ConfigError: naming the word, the character that cannot be read, and how the value is quoted.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ValueType
    from hydra.errors import HydraException

    reader = OverridesParser.create()
    for word in words:
        key, _, value = word.partition("=")
        if not key.strip("+~"):
            raise ConfigError(f"{word!r} has no key before the =: write key=value")
        if key.startswith("~"):
            raise ConfigError(f"{word!r} would take a key out, and every key is needed: give it a value, as key=value")
        try:
            read = reader.parse_override(word)
        except HydraException as error:
            raise ConfigError(_unreadable(word, error)) from error
        if read.value_type is ValueType.SIMPLE_CHOICE_SWEEP:
            raise ConfigError(
                f"{word!r} gives several values, expected one: for a list write {shlex.quote(f'{key}=[{value}]')}, for "
                f"one value quote it, as in {quoted(word)}"
            )
        if read.is_sweep_override():
            raise ConfigError(f"{word!r} calls a function that gives several values, expected one: {_advice(word)}")


def quoted(word: str) -> str:
    """Return a `key=value` word so that a shell and then Hydra read its value as it stands."""
    key, _, value = word.partition("=")
    value = value.replace("${", r"\${")
    mark = '"' if "'" in value and '"' not in value else "'"
    ending = len(value) - len(value.rstrip("\\"))  # backslashes before a quotation mark count twice
    value = value.replace(mark, "\\" + mark) + "\\" * ending
    inside = f"{key}={mark}{value}{mark}"
    if mark == "'" and not set('"$`\\!\n') & set(inside):
        return f'{key}="{mark}{value}{mark}"'
    return shlex.quote(inside)


def _advice(word: str) -> str:
    return f"where this is the value itself, quote it, as in {quoted(word)}"


def _unreadable(word: str, error: Exception) -> str:
    key, _, value = word.partition("=")
    if " while evaluating " in str(error):
        reason = first_line(error.__cause__ or error)
        return f"{word!r} calls a function that cannot be evaluated ({reason}): {_advice(word)}"
    place = _place(word, error)
    if place < len(key):
        return f"{word!r} has {word[place]!r} in its key: expected letters, digits, _ and dots, as in a.b_c=value"
    seen = word[place]
    close = f"close it with {PAIRS[seen]}, or " if seen in PAIRS else ""
    return (
        f"{word!r} cannot be read: {seen!r} may not stand there in a value that is not quoted; {close}{_advice(word)}"
    )


def _place(word: str, error: Exception) -> int:
    """Where the character is that stopped Hydra's parser: as it says, else the first that has a meaning to it."""
    cause = error.__cause__
    token = getattr(cause, "offendingToken", None)
    place = getattr(cause, "startIndex", None) if token is None else token.start
    if place is not None and 0 <= place < len(word):
        return place
    begin = word.index("=") + 1 if "=" in word else 0
    return next((i for i in range(begin, len(word)) if word[i] in "()[]{},='\""), len(word) - 1)


def explained(error: Exception, words: Sequence[str], known: Iterable[str], file: str) -> str:
    """Return what Hydra's or OmegaConf's error means for the `key=value` words, as one sentence.

    Args:
        error: what composing, merging or resolving raised.
        words: the words of the command line.
        known: every key that there is, dotted.
        file: where the keys are written, for a key that is near none of them.
    """
    from hydra.errors import MissingConfigException
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        InterpolationResolutionError,
        OmegaConfBaseException,
    )

    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
        group, _, name = cause.missing_cfg_file.rpartition("/")
        choices = sorted(cause.options or ())
        return f"{group or 'the configuration'}={name}: expected one of {', '.join(choices)}{_near(name, choices)}"
    key = getattr(cause, "full_key", None) or ""
    reason = one_line(first_line(cause), 200)
    if isinstance(cause, InterpolationResolutionError):
        whose = f"the value of {key}" if key else "a value"
        return (
            f"{whose} has a ${{...}} that cannot be resolved ({reason}): expected the name of a key, or "
            "${oc.env:NAME} for a variable that is set; correct it, or write \\${ for the characters themselves"
        )
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return unknown_key(key, known, f"see {file}")
    word = next((word for word in reversed(words) if _key(word) == key), None)
    if word is not None and isinstance(cause, OmegaConfBaseException):
        kind = type(cause.child_node).__name__
        if cause.child_node is None:  # of a list or section as a whole
            kind = {list: "ListConfig", dict: "DictConfig"}.get(cause.object_type, kind)
        return f"{word!r} has a value of the wrong kind: expected {KINDS.get(kind, 'another kind')} ({reason})"
    said = ", ".join(map(repr, words)) or file
    return f"{said} cannot be applied to the configuration ({reason}): compare the keys and values with {file}"


def unknown_key(key: str, known: Iterable[str], otherwise: str) -> str:
    """Return that there is no such key, with the nearest known one, else `otherwise`."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"unknown config key {key!r}: {f'did you mean {near[0]}?' if near and near != [key] else otherwise}"


def _near(name: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.3)
    return f" (did you mean {near[0]}?)" if near else ""


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")
