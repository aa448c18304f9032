"""What a key of the schema may hold, and whether it may change when a run resumes: metadata of its dataclass field."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

MAPPING = "amalia"  # the name of ours in a field's metadata


def key(
    default: Any,
    *,
    on_resume: str,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    is_path: bool = False,
    filled: bool = False,
) -> Any:
    """Return a dataclass field of one key.

    Args:
        default: its value where conf/ and the command give none.
        on_resume: "same" (it must equal the value that the run began with) or "free".
        least, most: the smallest and the largest number, both allowed.
        above, below: as those, themselves not allowed.
        choices: the texts that a str may be, or that a list may hold.
        is_path: a file or folder: never empty, and compared as an absolute path.
        filled: a text that is never empty.
    """
    own = {
        "on_resume": on_resume,
        "least": least,
        "most": most,
        "above": above,
        "below": below,
        "choices": choices,
        "is_path": is_path,
        "filled": filled or is_path,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={MAPPING: own})
    return field(default=default, metadata={MAPPING: own})


same = partial(key, on_resume="same")
free = partial(key, on_resume="free")


@dataclass(frozen=True)
class Key:
    """A key with its dotted name. kind: bool, int, float, str or list; the rest as `key` takes it."""

    name: str
    kind: type
    optional: bool
    on_resume: str | None = None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    is_path: bool = False
    filled: bool = False

    @property
    def numeric(self) -> bool:
        """Whether it holds a number."""
        return self.kind in (int, float)

    @property
    def bounded(self) -> bool:
        """Whether its numbers end at both sides."""
        return None not in (_first(self.least, self.above), _first(self.most, self.below))

    def fits(self, value: Any) -> bool:
        """Whether it may hold `value`. No number that is not finite fits."""
        if value is None:
            return self.optional
        if self.kind is list:
            return isinstance(value, list) and all(item in (self.choices or value) for item in value)
        if self.kind is str:
            filled = isinstance(value, str) and (not self.filled or bool(value.strip()))
            return filled and (not self.choices or value in self.choices)
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        whole = isinstance(value, int)
        return (whole or (self.kind is float and isinstance(value, float))) and self._within(value)

    def _within(self, value: float) -> bool:
        """False for nan, whose every comparison is false."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and value == value
        )

    def remedy(self) -> str:
        """What to give it, after a colon: `expected a whole number from 1 to 1,024`."""
        null = ", or null" if self.optional else ""
        if self.choices:
            several = f", or several, as [{','.join(self.choices[:2])}]" if self.kind is list else ""
            return f"choose one of {', '.join(self.choices)}{several}{null}"
        if self.numeric:
            return f"expected a {'whole ' if self.kind is int else ''}number {self._range()}{null}"
        texts = {bool: "true or false", list: "a list, as [a,b]", str: "a path" if self.is_path else "a text"}
        return f"expected {texts[self.kind]}{null}"

    def _range(self) -> str:
        if self.above is None and self.below is None:
            return f"from {self.least:,} to {self.most:,}"
        lower = f"of at least {self.least:,}" if self.above is None else f"above {self.above:,}"
        return f"{lower} and " + (f"at most {self.most:,}" if self.below is None else f"below {self.below:,}")


def keys_of(schema: type, prefix: str = "") -> Iterator[Key]:
    """Every key of a schema and of its sections, in order."""
    for item in dataclasses.fields(schema):
        name = prefix + item.name
        if dataclasses.is_dataclass(item.type):
            yield from keys_of(item.type, f"{name}.")
            continue
        kinds = [one for one in typing.get_args(item.type) if one is not type(None)]
        optional = type(None) in typing.get_args(item.type)
        kind = kinds[0] if optional else typing.get_origin(item.type) or item.type
        yield Key(name, kind, optional, **item.metadata.get(MAPPING, {}))


def value_of(run: Any, name: str) -> Any:
    """The value of a dotted key."""
    for part in name.split("."):
        run = getattr(run, part)
    return run


def shown(value: Any) -> str:
    """A value as the command line takes it, but for quotes."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
