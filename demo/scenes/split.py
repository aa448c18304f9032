"""Which side of the fence a scene layout, a string or a photograph is on: `train` or `eval`.

The side is a property of the content itself (a stable hash), never of a run: the base, stage 1 and stage 2
see only `train`, the evaluation only `eval`, whatever their seeds (issue 2: held-out means held out).
"""

import hashlib
from typing import Literal

from demo.errors import DemoError

Side = Literal["train", "eval"]

#: Out of 100 contents, how many are held out.
EVAL_PERCENT = 12


def bucket(content: str) -> int:
    """A stable number in [0, 100) for `content`; upper and lower case are the same content."""
    digest = hashlib.sha256(content.casefold().encode("utf-8")).hexdigest()
    return int(digest[:12], 16) % 100


def side_of(content: str) -> Side:
    """The side on which `content` (a canonical layout, or a string that may be drawn) lies."""
    return "eval" if bucket(content) < EVAL_PERCENT else "train"


def require_side(content: str, side: Side) -> None:
    """Refuse content of the other side.

    Raises:
        DemoError: `content` belongs to the other side.
    """
    seen = side_of(content)
    if seen != side:
        raise DemoError(
            f"{content!r} lies on the {seen} side of the split and was asked for as {side}: draw another one "
            "(demo/scenes/split.py decides by content, so it cannot be moved)"
        )
