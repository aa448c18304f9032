"""Wrong options: programs near a given one that, by execution, print something else.

Which of them is asked about is then drawn by chance. Were it always the first, the right option would be the one that
all others resemble, and a reader could find it without the picture.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from data_prep.code.execution import Executor, UnusableError
from data_prep.engine import Drop, Sample


async def with_distractors(
    sample: Sample, run: Any, programs: Iterable[str], *, number: int, tries: int, executor: Executor
) -> Sample:
    """Gives "program", "output" and "wrong", a list of `number` [program, output]: the sample's own program and the
    first of `programs` that run and print other things than it and than each other, in a random order.

    tries: programs to run at most. Drops as few_distractors.
    """
    try:
        found = await asyncio.to_thread(executor.others, programs, [sample["output"]], number, tries)
    except UnusableError as error:
        raise Drop(error.reason, error.note) from error
    together = [[sample["program"], sample["output"]], *map(list, found)]
    run.rng.shuffle(together)
    (program, output), *wrong = together
    return sample | {"program": program, "output": output, "wrong": wrong}
