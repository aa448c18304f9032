"""Programs that differ from a given one in one token: where wrong answers come from that a careless reader would give.

Only tokens change, so that layout and comments tell nobody which program is the original. Whether a mutant's output is
really another is for the sandbox to say.
"""

from __future__ import annotations

import io
import random
import tokenize
from collections.abc import Iterator

from data_prep.code.filters import parse
from nemo_amalia.utils.errors import DataError

SWAPS = {
    "+": ("-",), "-": ("+",), "*": ("+", "**"), "/": ("//",), "//": ("/", "%"), "%": ("//",), "**": ("*",),
    "<": ("<=", ">"), "<=": ("<", ">="), ">": (">=", "<"), ">=": (">", "<="), "==": ("!=",), "!=": ("==",),
    "+=": ("-=",), "-=": ("+=",), "*=": ("+=",), "//=": ("-=",), "&": ("|",), "|": ("&", "^"), "^": ("|",),
    "<<": (">>",), ">>": ("<<",),
    "and": ("or",), "or": ("and",), "True": ("False",), "False": ("True",), "min": ("max",), "max": ("min",),
    "any": ("all",), "all": ("any",), "upper": ("lower", "title"), "lower": ("upper",), "title": ("upper",),
    "append": ("extend",), "sum": ("len", "max"), "len": ("sum",), "break": ("continue",), "continue": ("break",),
    "keys": ("values",), "values": ("keys",), "startswith": ("endswith",), "endswith": ("startswith",),
    "lstrip": ("rstrip",), "rstrip": ("lstrip",), "union": ("intersection",), "intersection": ("union",),
    "find": ("rfind",), "sorted": ("list",), "reversed": ("list",), "round": ("int",), "abs": ("int",),
}  # fmt: skip


def mutants(code: str, rng: random.Random) -> Iterator[str]:
    """Programs of one other token each, all different, all of correct syntax, in a random order.

    Raises DataError on code that does not tokenise.
    """
    lines = code.splitlines(keepends=True)
    changes = [(token, new) for token in _tokens(code) for new in _others(token)]
    rng.shuffle(changes)
    seen = {code}
    for token, new in changes:
        (row, start), (_, end) = token.start, token.end
        changed = [*lines]
        changed[row - 1] = changed[row - 1][:start] + new + changed[row - 1][end:]
        text = "".join(changed)
        if text not in seen and parse(text) is not None:
            seen.add(text)
            yield text


def _tokens(code: str) -> list[tokenize.TokenInfo]:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, SyntaxError) as error:
        raise DataError(f"the code does not tokenise ({error}): give correct Python") from error
    return [t for t in tokens if t.type in (tokenize.OP, tokenize.NAME, tokenize.NUMBER) and t.start[0] == t.end[0]]


def _others(token: tokenize.TokenInfo) -> tuple[str, ...]:
    if token.type != tokenize.NUMBER:
        return SWAPS.get(token.string, ())
    if token.string.isdecimal() and len(token.string) < 10:
        number = int(token.string)
        return tuple(str(n) for n in (number + 1, number - 1, number + 2) if n >= 0)
    return ()
