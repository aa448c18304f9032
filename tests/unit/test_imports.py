"""The import rules of docs/architecture.md: one way, no cycles, platform from entry points alone."""

import ast
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("nemo_amalia", "data_prep")

# Folder or single module -> what it may import inside its package, besides itself; the longest name that fits a module
# is its rule. `utils` and `variety` import nothing inside and may be imported from everywhere.
MAY_IMPORT = {
    "nemo_amalia": {
        "utils": "",
        "variety": "",
        "config": "",
        "config.validation": "config",
        "data.samples": "",
        "data.messages": "",
        "data.images": "",
        "data.faults": "",
        "data.settings": "config data.images",
        "data.encoding": "config data.settings data.samples data.messages data.images",
        "data.shards": "config data.samples data.messages data.images data.encoding",
        "data.importing": "config data.messages data.images data.shards",
        "data.packing": "config data.settings data.samples data.images data.encoding data.shards",
        "data.mix": "config data.images data.encoding data.shards",
        "data.loading": ("data.settings data.samples data.images data.faults data.encoding data.shards data.packing"),
        "data.view": (
            "config data.settings data.samples data.images data.encoding data.shards data.packing "  # all but faults
            "data.loading"
        ),
        "data.provider": "data.settings data.samples data.images data.encoding data.loading",
        "model": "config data.images.geometry",
        "bridge": "config data.images.geometry model",
        "training.job": "data.loading.workers",
        "training.preflight": "config data.settings data.packing bridge.checkpoints",
        "training.steps": "config data.samples data.images data.loading.stream",
        "training.setup": "config data.settings data.provider model training.preflight",
        "training.callbacks": "config data.faults model.freeze training.job training.preflight training.steps",
        "training.reference": "config data model bridge training.job training.setup training.steps",
        "training.launch": "config data.shards bridge.checkpoints bridge.saved_sizes training.job training.preflight "
        "training.reference",
        "training": "config data model bridge",  # run, main and reference_main: all of training
        "cluster.plan": (
            "config data.settings data.samples data.images data.packing data.loading.collator model.provider bridge"
        ),
        "cluster.dryrun": "config data.samples model training.setup training.steps cluster.plan",
        "cluster.doctor": "config training.job",
        "cluster": "config training.job training.callbacks.run_state",  # commands, status: all of cluster
        "platform": "",
        "cli": "config data model bridge training cluster platform",
    },
    "data_prep": {
        "seeds": "",
        "config": "",
        "models": "",
        "sandbox": "",
        "text": "",
        "rendering": "seeds config",
        "translation": "models",
        "engine": "models",
        "code": "engine models sandbox rendering",
        "pipelines": "seeds config models text rendering translation engine code",
        "variety_settings": "config",
        "variety_command": "config variety_settings",
        "usage": "config",
        "cli": "config engine models usage pipelines variety_command",
    },
}
EVERYWHERE = ("utils", "variety")
# What data_prep may import of the trainer: the format of samples and shards, and what everybody may.
SHARED = ("data.images.geometry", "data.encoding.chat", "data.samples", "data.shards", *EVERYWHERE)
# Entry points: the files whose first act is to prepare the platform (docs/architecture.md).
ENTRY_POINTS = {"training.main", "cli", "cluster.doctor.machine"}
HEAVY = {"torch", "megatron", "transformers", "nemo", "nvidia"}
# What loads nothing heavy when imported, so that `amalia --help` and a user's error answer at once.
LIGHT = ("cli", "config", "utils", "variety", "data.messages", "data.images.geometry", "data.images.headers")
STANDARD_AND_YAML = {"utils", "variety"}  # at import time nothing but the standard library and yaml


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
    """Dotted names that a file imports, lazily or not, also for a type checker."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def imported_at_once(path: Path) -> set[str]:
    """First names of what a file imports when it is imported itself."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def inner_imports(path: Path, package: str = "nemo_amalia") -> set[str]:
    """Modules below a package that a file imports."""
    known = modules(package)
    names = {name.removeprefix(f"{package}.") for name in imported(path) if name.startswith(f"{package}.")}
    return {name if name in known else name.rpartition(".")[0] for name in names} - {""}


def lies_in(name: str, rule: str) -> bool:
    return name == rule or name.startswith(f"{rule}.")


def owner(name: str, package: str) -> str | None:
    """The key of MAY_IMPORT that a module's rule stands under."""
    return max((rule for rule in MAY_IMPORT[package] if lies_in(name, rule)), key=len, default=None)


def allowed(name: str, target: str, package: str) -> bool:
    rule = owner(name, package)
    if rule is None or (target == "platform" and name not in ENTRY_POINTS | {"platform"}):
        return False
    may = [rule, *EVERYWHERE, *MAY_IMPORT[package][rule].split(), *(["platform"] if name in ENTRY_POINTS else [])]
    return any(lies_in(target, one) for one in may)


def all_imports(package: str) -> Iterator[tuple[str, str]]:
    for name, path in modules(package).items():
        yield from ((name, target) for target in inner_imports(path, package) if target != name)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_has_a_rule(package):
    without = sorted(name for name in modules(package) if owner(name, package) is None and "." in name)
    assert not without, f"no import rule for {without}: add one here and in docs/architecture.md"


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package):
    wrong = [f"{name} imports {target}" for name, target in all_imports(package) if not allowed(name, target, package)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_folders_import_each_other(package):
    """Of the folders with a rule; a lone module is a folder here."""
    pairs = {(owner(name, package), owner(target, package)) for name, target in all_imports(package)}
    both = sorted(pair for pair in pairs if pair[0] != pair[1] and pair[::-1] in pairs)
    assert not both


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


def test_a_pipeline_imports_no_other_pipeline():
    def of(name: str) -> str:
        return name.split(".")[1]

    pairs = [(name, target) for name, target in all_imports("data_prep") if target.startswith("pipelines.")]
    wrong = [f"{name} imports {target}" for name, target in pairs if name.count(".") and of(name) != of(target)]
    assert not wrong, "\n".join(wrong)


def test_data_prep_takes_the_sample_format_of_the_trainer_and_nothing_else():
    wrong = []
    for name, path in modules("data_prep").items():
        taken = [target for target in inner_imports(path) if not any(lies_in(target, one) for one in SHARED)]
        wrong += [f"{name} imports nemo_amalia.{target}" for target in taken]
        wrong += [f"{name} imports {target}" for target in imported(path) if target.split(".")[0] in HEAVY]
    assert not wrong, "\n".join(wrong)


def test_the_trainer_needs_neither_data_prep_nor_the_demo():
    outside = ("data_prep", "demo", "benchmarks", "tests")
    pairs = chain.from_iterable(((name, one) for one in imported(path)) for name, path in modules().items())
    assert not [f"{name} imports {one}" for name, one in pairs if one.split(".")[0] in outside]


def test_nothing_heavy_is_imported_on_the_way_to_help():
    light = {name: path for name, path in modules().items() if any(lies_in(name, one) for one in LIGHT)}
    assert len(light) > 15
    wrong = {name: imported_at_once(path) & HEAVY for name, path in light.items()}
    assert not {name: found for name, found in wrong.items() if found}, "import it inside the function"


def test_utils_and_variety_take_the_standard_library_and_yaml():
    import sys

    for name, path in modules().items():
        if name.split(".")[0] in STANDARD_AND_YAML:
            others = imported_at_once(path) - {"nemo_amalia", "yaml"} - set(sys.stdlib_module_names)
            assert not others, f"{name} imports {others} at its top: import it inside the function"
