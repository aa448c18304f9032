"""The import rules of docs/architecture.md: one way, no cycles, platform from entry points alone."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("nemo_amalia", "data_prep")

# folder (or single file) -> what it may import from inside; its own folder is always allowed.
MAY_IMPORT = {
    "config": set(),
    "data": {"config"},
    "model": {"config", "data.images.geometry"},
    "bridge": {"model", "config", "data.images.geometry"},
    "training": {"data", "model", "bridge", "config", "platform"},
    "cluster": {"config", "model", "data", "bridge", "training"},
    "evaluation": {"config"},
    "platform": set(),
    "utils": set(),
    "variety": set(),
    "cli": {"config", "data", "model", "bridge", "training", "cluster", "evaluation", "platform"},
}
# What data_prep may import of the trainer: the format of samples and shards, and how a process ends with its parent.
SHARED_DATA = ("data.images.geometry", "data.encoding.chat", "data.samples", "data.shards", "utils", "variety")
# Entry points: the files whose first act is to prepare the platform (docs/architecture.md).
ENTRY_POINTS = {"training.main", "cli", "cluster.doctor.machine"}


@cache
def modules(package: str = "nemo_amalia") -> dict[str, Path]:
    """Dotted name below a package -> file."""
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


@cache
def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, lazily or not; what only a type checker reads does not count."""
    names, tree = set(), ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def inner_imports(path: Path, package: str = "nemo_amalia") -> set[str]:
    """Modules below a package that a file imports."""
    known = modules(package)
    names = {name.removeprefix(f"{package}.") for name in imported(path) if name.startswith(f"{package}.")}
    return {name if name in known else name.rpartition(".")[0] for name in names} - {""}


def allowed(owner: str, target: str, name: str) -> bool:
    room = target.split(".")[0]
    if room in (owner, "utils"):
        return True
    if room == "platform":
        return name in ENTRY_POINTS
    return any(target == rule or target.startswith(rule + ".") for rule in MAY_IMPORT[owner])


def test_every_room_has_a_rule():
    rooms = {name.split(".")[0] for name in modules()}
    assert rooms <= set(MAY_IMPORT), f"no import rule for {rooms - set(MAY_IMPORT)}: add it, here and in docs"


def test_imports_go_one_way():
    wrong = [
        f"{name} imports {target}"
        for name, path in modules().items()
        for target in inner_imports(path)
        if not allowed(name.split(".")[0], target, name)
    ]
    assert not wrong, "\n".join(wrong)


def test_data_prep_takes_the_sample_format_of_the_trainer_and_nothing_else():
    heavy = {"megatron", "nemo", "torch"}
    wrong = []
    for name, path in modules("data_prep").items():
        wrong += [
            f"{name} imports nemo_amalia.{target}"
            for target in inner_imports(path)
            if not target.startswith(SHARED_DATA)
        ]
        wrong += [f"{name} imports {target}" for target in imported(path) if target.split(".")[0] in heavy]
        if not name.startswith("pipelines."):
            sets = {target for target in inner_imports(path, "data_prep") if target.startswith("pipelines.")}
            wrong += [f"{name} imports {target}: only pipelines know pipelines" for target in sets]
    assert not wrong, "\n".join(wrong)


def test_the_trainer_does_not_need_data_prep():
    wrong = [name for name, path in modules().items() if any(n.startswith("data_prep") for n in imported(path))]
    assert not wrong, f"{wrong} import data_prep, which is an extra"


@pytest.mark.parametrize("package", PACKAGES)
def test_there_are_no_cycles(package):
    graph = {name: inner_imports(path, package) - {name} for name, path in modules(package).items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join((*trail, name))}"
        if name in done:
            return
        for target in graph.get(name, ()):
            visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_megatron_is_not_imported_on_the_way_to_help():
    """`amalia --help` and config errors answer at once: these rooms load nothing heavy when imported."""
    slow = {"torch", "megatron", "transformers", "nemo", "nvidia"}
    for name, path in modules().items():
        if name.split(".")[0] not in {"config", "cli"}:
            continue
        for node in ast.parse(path.read_text()).body:
            roots = set()
            if isinstance(node, ast.Import):
                roots = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                roots = {node.module.split(".")[0]}
            assert not roots & slow, f"{name} imports {roots & slow} at its top: import it inside the function"
