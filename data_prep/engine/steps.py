"""What a pipeline is written in: a source, steps, barriers, Drop. docs/data_prep.md shows one."""

from __future__ import annotations

import functools
import importlib
import inspect
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.engine.model_access import Models
from nemo_amalia.utils.errors import DataError

Sample = dict[str, Any]
REASON = re.compile(r"[a-z0-9_]+")


class Drop(Exception):
    """Raised by a step: the sample ends here and is counted by `reason` (a-z, 0-9, _); `note` goes into dropped.jsonl.

    Raises DataError on a reason of other characters: reasons are names in tables.
    """

    def __init__(self, reason: str, note: str = "") -> None:
        if not REASON.fullmatch(reason):
            raise DataError(
                f"drop reason {reason!r} is not a valid name: use a-z, 0-9 and _, and put details into note="
            )
        super().__init__(reason)
        self.reason, self.note = reason, note


@dataclass
class Run:
    """What a step may use beside its sample.

    seed: of the run. models: asks models; an error where the configuration names none. rng: random numbers of this
    sample in this step alone, so that neither workers nor order change them.
    """

    seed: int
    step: str
    key: str
    models: Models | None = None

    @functools.cached_property
    def rng(self) -> random.Random:
        """Seeded by run, step and sample key (a str seed goes through SHA-512: equal everywhere)."""
        return random.Random(f"{self.seed}/{self.step}/{self.key}")


@dataclass(frozen=True)
class Barrier:
    """All samples so far are looked at together; what `choose` names goes on, in its order.

    choose(samples, run) -> positions in `samples`: an int sends that sample on; a list of ints makes one sample
    {"key", "source", "licence", "samples": [...]} of several. What is named nowhere is dropped as `reason`.
    fields: what choose sees of each sample, all in memory at once; () for all but bytes.
    """

    choose: Callable[[Sequence[Sample], Run], Iterable[int | Sequence[int]]]
    reason: str = "not_chosen"
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Drop(self.reason)  # the same rule for names


@dataclass(frozen=True)
class Step:
    """A step with the name by which it is counted; call(sample, run) -> a sample, or a list of at least one."""

    name: str
    call: Callable[[Sample, Run], Any]
    is_async: bool


@dataclass
class Phase:
    """What lies between two barriers, or a barrier and an end: its records come from `source` or from `barrier`."""

    name: str
    source: Callable[[], Iterator[Sample]] | None = None
    barrier: Barrier | None = None
    steps: list[Step] = field(default_factory=list)


def name_of(part: Any) -> str:
    """How a source or step is called in counts: its function's name, or of an object its class's."""
    while isinstance(part, functools.partial):
        part = part.func
    return getattr(part, "name", None) or getattr(part, "__name__", None) or type(part).__name__.lower()


def phases_of(parts: Sequence[Any]) -> list[Phase]:
    """A pipeline's list -> its phases. The same step twice gets a number, as in translate_2.

    Raises DataError on a list that does not begin with a source, and on what is neither step nor barrier.
    """
    if not parts or isinstance(parts[0], Barrier) or not callable(parts[0]):
        raise DataError("a pipeline is a list that begins with its source, a function that yields records")
    phases = [Phase(f"1-{name_of(parts[0])}", source=parts[0])]
    seen: dict[str, int] = {}
    for part in parts[1:]:
        if isinstance(part, Barrier):
            phases.append(Phase(f"{len(phases) + 1}-{name_of(part.choose)}", barrier=part))
            continue
        if not callable(part):
            raise DataError(f"{part!r} in a pipeline is not a step: expected a function (sample, run), or a Barrier")
        name = name_of(part)
        seen[name] = seen.get(name, 0) + 1
        phases[-1].steps.append(Step(name if seen[name] == 1 else f"{name}_{seen[name]}", part, _is_async(part)))
    return phases


def _is_async(part: Any) -> bool:
    while isinstance(part, functools.partial):
        part = part.func
    return inspect.iscoroutinefunction(part) or inspect.iscoroutinefunction(getattr(part, "__call__", None))  # noqa: B004


def load_phases(conf: Any) -> tuple[Any, list[Phase]]:
    """Return (module, phases) of the pipeline that conf.pipeline names, data_prep.pipelines.NAME.pipeline by default.

    Raises:
        DataError: if the module does not exist, or needs a package that is not installed.
    """
    name = conf.get("pipeline") or f"data_prep.pipelines.{conf.name}.pipeline"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and not name.startswith(error.name):
            raise DataError(
                f"pipeline {name} needs {error.name}: install the extra, `pip install -e .[data-prep]`"
            ) from error
        raise DataError(f"there is no module {name}: a pipeline is a file with pipeline(conf)") from error
    return module, phases_of(module.pipeline(conf))
