"""Text -> lines of words that fit a width. Pure functions on the widths that a face gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WrappedLine:
    """words of one line, and `joint`, what stands between it and the line before (page.Page). block: which paragraph.

    last: nothing of its row follows, so it is never justified. indent: pixels.
    """

    words: tuple[str, ...]
    joint: str
    block: int
    last: bool
    indent: int = 0


def normalise(text: str) -> str:
    """The text that a page can show: NFC, paragraphs parted by one blank line, rows by "\\n", single spaces."""
    import unicodedata

    blocks, rows = [], []
    for line in [*unicodedata.normalize("NFC", text).splitlines(), ""]:
        if words := line.split():
            rows.append(" ".join(words))
        elif rows:
            blocks.append("\n".join(rows))
            rows = []
    return "\n\n".join(blocks)


def wrap_block(
    text: str, block: int, width: int, measure: Callable[[str], int], first_indent: int = 0
) -> list[WrappedLine]:
    """The lines of one paragraph. Its rows ("\\n") begin new lines; what is wrapped of a paragraph with rows hangs by
    two spaces' width, or a reader could not tell a row from a wrapped one. first_indent: pixels, of its first line.
    """
    space = measure(" ")
    rows = text.split("\n")
    hang = 2 * space if len(rows) > 1 else 0
    lines: list[WrappedLine] = []
    for number, row in enumerate(rows):
        joint = ("\n\n" if block else "") if number == 0 else "\n"
        indent = first_indent if number == 0 else 0
        current: list[str] = []
        used = indent
        for word, broken in _pieces(row.split(" "), width - max(indent, hang), measure):
            wide = measure(word)
            if current and (broken or used + space + wide > width):
                lines.append(WrappedLine(tuple(current), joint, block, False, indent))
                current, joint, indent, used = [], "" if broken else " ", hang, hang
            used += wide + (space if current else 0)
            current.append(word)
        lines.append(WrappedLine(tuple(current), joint, block, True, indent))
    return lines


def _pieces(words: list[str], width: int, measure: Callable[[str], int]) -> list[tuple[str, bool]]:
    """Words, those wider than a line cut where it ends; True: continues the word before without a space."""
    pieces: list[tuple[str, bool]] = []
    for word in words:
        broken = False
        while len(word) > 1 and measure(word) > width:
            cut = next((n for n in range(len(word) - 1, 1, -1) if measure(word[:n]) <= width), 1)
            pieces.append((word[:cut], broken))
            word, broken = word[cut:], True
        pieces.append((word, broken))
    return pieces
