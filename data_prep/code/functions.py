"""Where functions come from: files in CodeSearchNet's format, and Python's own standard library (section 5.1).

A record: {"source", "licence", "name", "code", "programming", "imports"}. imports: name -> the import statement that
binds it in the module the function was taken from (CodeSearchNet does not say).
"""

from __future__ import annotations

import ast
import gzip
import json
import platform
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nemo_amalia.utils.errors import DataError

UNKNOWN = "unknown"
LEFT_OUT = ("test", "idlelib", "lib2to3", "site-packages", "__pycache__", "turtledemo", "ensurepip", "encodings")


def read_functions(
    *, files: Iterable[str | Path], licences: str | Path | None, languages: Iterable[str]
) -> Iterator[dict[str, Any]]:
    """The source of a pipeline: CodeSearchNet's files, or without files Python's standard library."""
    files = list(files)
    return codesearchnet(files, licences, languages) if files else standard_library()


def codesearchnet(
    files: Iterable[str | Path], licences: str | Path | None = None, languages: Iterable[str] = ("python",)
) -> Iterator[dict[str, Any]]:
    """The functions of CodeSearchNet's .jsonl or .jsonl.gz files, in order, of the given programming languages.

    licences: lines of `owner/name<tab>SPDX identifier`; CodeSearchNet keeps its own in a pickle, which is not read.
    A row's own "licence" or "license" comes first; without either it is "unknown". Raises DataError on a missing file
    and on a line that is no such record, naming both.
    """
    known, wanted = _licences(licences) if licences else {}, set(languages)
    for file in map(Path, files):
        if not file.is_file():
            raise DataError(f"no file {file}: give CodeSearchNet's .jsonl.gz files (python/final/jsonl/train/*.gz)")
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else open(file, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                record = _row(line, f"line {number} of {file}")
                if record["language"] not in wanted:
                    continue
                repo = record.get("repo", record.get("repository_name", ""))
                path = record.get("path", record.get("func_path_in_repository", ""))
                yield {
                    "source": f"codesearchnet/{repo}/{path}@{record.get('sha', '')[:12]}",
                    "licence": record.get("licence") or record.get("license") or known.get(repo, UNKNOWN),
                    "name": record.get("func_name", "").rpartition(".")[2],
                    "code": record["original_string"],
                    "programming": record["language"],
                    "imports": {},
                }


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}): give CodeSearchNet's own files") from error
    if not isinstance(record, dict) or not all(
        isinstance(record.get(field), str) for field in ("original_string", "language")
    ):
        raise DataError(f"{where} has no original_string and language: give CodeSearchNet's .jsonl.gz files")
    return record


def _licences(file: str | Path) -> dict[str, str]:
    if not Path(file).is_file():
        raise DataError(f"no file {file}: give lines of `owner/name<tab>SPDX identifier`, or leave licences out")
    rows = [line.split("\t") for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    if wrong := [row for row in rows if len(row) != 2]:
        raise DataError(f"{file} holds the line {wrong[0]}: expected `owner/name<tab>SPDX identifier`")
    return {repo.strip(): licence.strip() for repo, licence in rows}


def standard_library(folder: str | Path | None = None) -> Iterator[dict[str, Any]]:
    """The module-level functions of Python's standard library, in the order of files and lines; licence PSF-2.0."""
    root = Path(folder or sysconfig.get_path("stdlib"))
    version = ".".join(platform.python_version_tuple()[:2])
    for file in sorted(root.rglob("*.py")):
        inner = file.relative_to(root)
        if any(part.startswith("_") or part in LEFT_OUT for part in inner.parts):
            continue
        try:
            text = file.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (UnicodeDecodeError, SyntaxError):
            continue  # files that are there to be wrong
        imports, rows = _imports(tree), text.split("\n")  # ast.get_source_segment would split the file every time
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.decorator_list:
                yield {
                    "source": f"cpython-{version}/Lib/{inner.as_posix()}#L{node.lineno}",
                    "licence": "PSF-2.0",
                    "name": node.name,
                    "code": "\n".join(rows[node.lineno - 1 : node.end_lineno]),
                    "programming": "python",
                    "imports": imports,
                }


def _imports(tree: ast.Module) -> dict[str, str]:
    """name -> the shortest statement that binds it; of the standard library alone, `as` names kept."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                found[bound] = ast.unparse(ast.Import([alias]))
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = ast.unparse(ast.ImportFrom(node.module, [alias], 0))
    return {name: line for name, line in found.items() if line.split()[1].partition(".")[0] in sys.stdlib_module_names}
