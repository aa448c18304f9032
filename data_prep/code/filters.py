"""Which functions are used: licence, syntax, length, and whether one runs without the file that it was taken from.

Each is a step of a pipeline: (sample, run) -> the sample, or a Drop with its reason. Section 5.1: "syntactically
correct, 50-line max Python functions"; "permissible".
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import re
import symtable
import sys
import warnings
from collections.abc import Collection, Sequence
from typing import Any

from data_prep.engine import Drop, Sample
from data_prep.rendering.code import normalise_code

SPECIAL = re.compile(r"<image>|<\|[^|\n]{1,40}\|>|</?s>|<(?:start|end)_of_\w+>")
DOCUMENTED = ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef
NOT_KNOWN = ("", "unknown", "NOASSERTION")


def permissive(sample: Sample, run: Any, *, licences: Collection[str]) -> Sample:
    """Keeps records whose licence is one of these SPDX identifiers."""
    if sample["licence"] in NOT_KNOWN:
        raise Drop("licence_unknown", sample["source"])
    if sample["licence"].casefold() not in {name.casefold() for name in licences}:
        raise Drop("licence_not_permissive", sample["licence"])
    return sample


def fits(sample: Sample, run: Any, *, least: int, most: int, columns: int) -> Sample:
    """Keeps code of `least` to `most` lines (the paper: at most 50), none wider than `columns`."""
    rows = sample["code"].splitlines() or [""]
    if not least <= len(rows) <= most:
        raise Drop("too_many_lines" if len(rows) > most else "too_few_lines", str(len(rows)))
    if max(map(len, rows)) > columns:
        raise Drop("too_wide")
    return sample


def as_shown(sample: Sample, run: Any) -> Sample:
    """Makes the code what a picture of it can show (render_code.normalise_code), so that what is shown is what runs."""
    code = normalise_code(sample["code"])
    if SPECIAL.search(code):
        raise Drop("special_token", "a tokenizer would read it as one of its own marks")
    return sample | {"code": code}


def parse(code: str) -> ast.Module | None:
    """The syntax tree of Python code; None where it is no Python of this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence": old code, still right
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def python_syntax(sample: Sample, run: Any) -> Sample:
    """Drops Python that does not parse; other languages are taken as they are."""
    if sample["programming"] == "python" and parse(sample["code"]) is None:
        raise Drop("syntax")
    return sample


def one_function(sample: Sample, run: Any) -> Sample:
    """Keeps one plain function that can be called: no method, generator, coroutine, or decorator. Gives its `name`."""
    tree = parse(sample["code"])
    if tree is None:
        raise Drop("syntax")
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef) or tree.body[0].decorator_list:
        raise Drop("not_one_function")
    function = tree.body[0]
    arguments = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    if arguments[:1] in (["self"], ["cls"], ["mcs"]):
        raise Drop("method")
    if any(isinstance(node, ast.Yield | ast.YieldFrom | ast.Await) for node in ast.walk(function)):
        raise Drop("generator")
    if not any(isinstance(node, ast.Return) and node.value is not None for node in ast.walk(function)):
        raise Drop("returns_nothing")
    return sample | {"name": function.name}


def self_contained(sample: Sample, run: Any) -> Sample:
    """Puts the imports of the standard library that a function needs before it; drops one that needs anything else."""
    needed = []
    for name in sorted(free_names(sample["code"]) - {sample["name"]}):
        if name in sample["imports"]:
            needed.append(sample["imports"][name])
        elif name in sys.stdlib_module_names:
            needed.append(f"import {name}")
        else:
            raise Drop("not_self_contained", name)
    head = "\n".join(sorted(set(needed)))
    return sample | {"code": f"{head}\n\n\n{sample['code']}" if head else sample["code"]}


def free_names(code: str) -> set[str]:
    """Names that Python code takes from outside itself, builtins left out. Raises SyntaxError on what is no Python."""
    table = symtable.symtable(code, "code", "exec")
    own = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used: set[str] = set()
    waiting: list[Any] = [table]
    while waiting:
        scope = waiting.pop()
        waiting += scope.get_children()
        for symbol in scope.get_symbols():
            outer = symbol.is_global() or scope is table
            if outer and symbol.is_referenced() and not (scope is table and symbol.get_name() in own):
                used.add(symbol.get_name())
    return used - own - set(dir(builtins))


def distinct(samples: Sequence[Sample], run: Any) -> list[int]:
    """Positions of the first of equal codes (layout, comments and docstrings do not make a difference in Python)."""
    seen: set[bytes] = set()
    kept = []
    for position, sample in enumerate(samples):
        digest = hashlib.blake2b(_canonical(sample).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            kept.append(position)
    return kept


def _canonical(sample: Sample) -> str:
    tree = parse(sample["code"]) if sample["programming"] == "python" else None
    if tree is None:
        return " ".join(sample["code"].split())
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
