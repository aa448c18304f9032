"""What every format shares: the words for a record that cannot be used, and where a row stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_amalia.utils.errors import DataError

#: Why a record does not become a sample. The names stand in dropped.jsonl and in the printed counts.
REASONS = {
    "record": "the record cannot be read, or lacks the fields of its format",
    "messages": "its turns have no known role, or no text",
    "missing_image": "a picture that it names is not there",
    "image": "a picture is unreadable, truncated, or of a kind that training refuses",
    "placeholders": "its <image> placeholders are not as many as its pictures",
    "no_answer": "nothing to learn: no answer, or an empty one",
    "other_prompt": "chosen and rejected do not answer the same prompt",
    "same_answers": "the chosen and the rejected answer are equal",
    "duplicate": "an earlier record has the same text and the same pictures",
}


class BadRecordError(DataError):
    """A record that cannot become a sample; `reason` is one of REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        assert reason in REASONS, reason
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """images: where relative picture paths begin; None means beside the source file.
    prompts: the questions that captions answer. max_image_pixels: a picture that has more is refused.
    """

    max_image_pixels: int
    images: Path | None = None
    prompts: tuple[str, ...] = ()

    def picture_folder(self, file: Path) -> Path:
        """The folder in which the pictures named by `file` (a file, or a folder of pictures) lie."""
        return self.images or (file if file.is_dir() else file.parent)


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    find: SOURCE -> its files, in a fixed order. rows: (file, how many to pass over) -> the raw records of a file; one
    that cannot be parsed comes as a BadRecordError, so that it is counted and the rest is read. convert: (row, folder
    of the pictures, options) -> {"messages", "images": [bytes]} with "chosen" and "rejected" for preferences;
    raises BadRecordError.
    """

    summary: str
    find: Callable[[Path], list[Path]]
    rows: Callable[[Path, int], Iterator[Any]]
    convert: Callable[[Any, Path, ReadOptions], dict[str, Any]]


def first_present(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first of `names` that the row has and that is not empty; else None."""
    return next((row[name] for name in names if row.get(name) not in (None, "", [])), None)


def require_object(row: Any) -> dict[str, Any]:
    """The row itself. Raises BadRecordError on one that could not be parsed, and on one that is no object."""
    if isinstance(row, BadRecordError):
        raise row
    if not isinstance(row, dict):
        raise BadRecordError("record", f"is {str(row)[:60]!r}: expected an object with named fields")
    return row
