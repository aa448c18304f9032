"""Short texts for log lines and errors."""

from __future__ import annotations


def one_line(text: object, most: int | None = None) -> str:
    """Return the text on a single line, runs of white space as one blank, cut to at most `most` characters."""
    line = " ".join(str(text).split())
    return line if most is None or len(line) <= most else line[: most - 1] + "…"


def first_line(text: object) -> str:
    """Return the first line of the text that is not blank; empty where there is none."""
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "")


def duration(seconds: float) -> str:
    """Return seconds as a person reads them: 5m07s, 3h20m, 2d04h."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
