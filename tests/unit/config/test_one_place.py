"""A setting's default stands in config/schema.py and nowhere else in Python; conf/*/default.yaml say the same."""

import ast
import dataclasses
from pathlib import Path

import pytest
import yaml

from nemo_amalia.config import schema

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = ROOT / "nemo_amalia" / "config" / "schema.py"


def fields_of(section, prefix=""):
    """{dotted key: field} of a section and of those in it."""
    found = {}
    for one in dataclasses.fields(section):
        inner = one.default_factory
        if dataclasses.is_dataclass(inner):
            found |= fields_of(inner, f"{prefix}{one.name}.")
        else:
            found[prefix + one.name] = one
    return found


KEYS = {key.rpartition(".")[2] for key in fields_of(schema.RunConfig)}
FROM_SCHEMA = {name for name in vars(schema) if name[0].isupper()}


def is_of_the_schema(value: ast.expr) -> bool:
    """DataConfig.seed, MODULES, or an expression with one of these in it."""
    return any(isinstance(node, ast.Name) and node.id in FROM_SCHEMA for node in ast.walk(value))


def defaults(tree: ast.AST):
    """(line, name, default) of parameters, class fields and options of a command line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            positional = given.posonlyargs + given.args
            pairs = list(zip(positional[len(positional) - len(given.defaults) :], given.defaults, strict=True))
            pairs += [(one, value) for one, value in zip(given.kwonlyargs, given.kw_defaults, strict=True) if value]
            yield from ((one.lineno, one.arg, value) for one, value in pairs)
        elif isinstance(node, ast.ClassDef):
            for one in node.body:
                if isinstance(one, ast.AnnAssign) and one.value is not None and isinstance(one.target, ast.Name):
                    yield one.lineno, one.target.id, one.value
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            name = str(getattr(node.args[0], "value", "")).lstrip("-").replace("-", "_") if node.args else ""
            yield from ((node.lineno, name, one.value) for one in node.keywords if one.arg == "default")


def test_no_default_stands_beside_the_schemas():
    wrong, seen = [], 0
    for path in sorted((ROOT / "nemo_amalia").rglob("*.py")):
        if path == SCHEMA:
            continue
        for line, name, value in defaults(ast.parse(path.read_text())):
            seen += 1
            owned = (
                ast.unparse(value) == "field(default_factory=ConnectorConfig)"
            )  # the connector's shape, not its rate
            if name in KEYS and not is_of_the_schema(value) and not owned:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {name} = {ast.unparse(value)}")
    assert seen > 200
    assert not wrong, "take it from config/schema.py, or make it required:\n" + "\n".join(wrong)


def test_the_top_of_conf_says_what_the_schema_says():
    values = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    assert values.pop("defaults") and values == {"seed": schema.RunConfig.seed}


@pytest.mark.parametrize("file", sorted((ROOT / "conf").glob("*/default.yaml")), ids=lambda file: file.parent.name)
def test_conf_says_what_the_schema_says(file):
    section = fields_of(
        {one.name: one for one in dataclasses.fields(schema.RunConfig)}[file.parent.name].default_factory
    )
    values = yaml.safe_load(file.read_text()) or {}
    for key, value in values.items():
        if value == schema.MISSING or key == "defaults":
            continue
        default = section[key].default
        assert value == default, f"{file.relative_to(ROOT)}: {key} is {value!r}, the schema has {default!r}"
