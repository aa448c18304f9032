"""One module reaches into Energon and torch: data/loading/energon_internals.py. It has what it touches, checked."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_amalia.data.loading import energon_internals as internals
from nemo_amalia.utils.errors import EnvironmentProblem

ROOT = Path(__file__).resolve().parents[2]
INTERNALS = "nemo_amalia/data/loading/energon_internals.py"
#: documented by their libraries, in spite of the underscore
PUBLIC = {"os._exit", "argparse._SubParsersAction", "_asdict"}
#: file -> what else is touched, and why it stands there
ELSEWHERE = {
    "nemo_amalia/cluster/dryrun/fake_world.py": {
        "_apply", "_parameters", "_buffers",  # replaces Module._apply on purpose: parameters that are fake
        "_local_scalar_dense",  # the name of an operator
    },
    # Bridge gives a model its process groups under this name, and declares it a field of the provider
    "nemo_amalia/bridge/single_process.py": {"_pg_collection"},
    "nemo_amalia/model/amalia_vl.py": {"_pg_collection"},
    # Megatron has no public way to which part of a gradient a rank of the distributed optimizer owns
    "nemo_amalia/training/callbacks/grad_norms.py": {"_get_model_param_range_map"},
    # a child that leaves by os._exit still runs what a generated program registered
    "data_prep/sandbox/program.py": {"_run_exitfuncs"},
}  # fmt: skip
TAKES_A_NAME = {"getattr", "setattr", "hasattr", "delattr"}


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def touched(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """(line, name, as it is written) of each private attribute of anything but self and cls, and private import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.lineno, node.attr, ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TAKES_A_NAME:
            name = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else ""
            if private(str(name)):
                yield node.lineno, name, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("torch", "megatron.energon")):
            yield from ((node.lineno, alias.name, ast.unparse(node)) for alias in node.names if private(alias.name))


def files() -> list[str]:
    found = [path for top in ("nemo_amalia", "data_prep") for path in sorted((ROOT / top).rglob("*.py"))]
    names = [str(path.relative_to(ROOT)) for path in found]
    return [name for name in names if name != INTERNALS and not name.startswith("nemo_amalia/platform/")]


def test_no_other_module_touches_private_attributes():
    wrong, used = [], set()
    for file in files():
        for line, name, text in touched(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if text in PUBLIC or name in PUBLIC:
                continue
            if name in ELSEWHERE.get(file, ()):
                used.add((file, name))
            else:
                wrong.append(f"{file}:{line}: {text}")
    assert not wrong, f"move these into {INTERNALS}, or add them to ELSEWHERE with the reason:\n" + "\n".join(wrong)
    unused = {(file, name) for file, names in ELSEWHERE.items() for name in names} - used
    assert not unused, f"no longer touched, take them out of ELSEWHERE: {unused}"


@pytest.mark.parametrize(
    "text",
    ["loader._iterator", "self.loader._iterator = None", "getattr(x, '_workers', None)", "f()._task_info[0]",
     "from torch.utils.data._utils.signal_handling import _remove_worker_pids"],
)  # fmt: skip
def test_the_rule_sees(text):
    assert list(touched(ast.parse(text)))


def test_the_rule_leaves_our_own_alone():
    text = "self._a = cls._b; _c = __version__; getattr(x, name); x.__dict__; from nemo_amalia.x import _y"
    assert not list(touched(ast.parse(text)))


def test_every_name_that_the_module_touches_is_checked():
    tree = ast.parse((ROOT / INTERNALS).read_text(encoding="utf-8"))
    checked = {
        name for kinds in internals.TOUCHED.values() for names in kinds.values() for n in names.values() for name in n
    }
    names = {name for _, name, _ in touched(tree)} | {"result_queues"}  # public by name, replaced nevertheless
    assert names == checked


@pytest.fixture
def anew():
    internals.check_installed.cache_clear()
    yield
    internals.check_installed.cache_clear()


@pytest.mark.parametrize("package", internals.WRITTEN_FOR)
def test_the_installed_releases_are_those(anew, package, caplog):
    internals.check_installed(package)
    assert not caplog.records


def test_a_name_that_is_gone_is_named(anew, monkeypatch):
    monkeypatch.setitem(
        internals.TOUCHED, "torch", {"torch.utils.data.dataloader": {"DataLoader": ("_iterator", "_x")}}
    )
    monkeypatch.setattr(internals, "installed_version", lambda name: "2.12.0a0+nv26.12")
    with pytest.raises(EnvironmentProblem) as info:
        internals.check_installed("torch")
    assert str(info.value).startswith("torch 2.12.0a0+nv26.12 has no torch.utils.data.dataloader.DataLoader._x: ")
    assert "written for torch 2.11; install the version that pyproject.toml pins" in str(info.value)


@pytest.mark.parametrize(
    "where", [{"torch.no_module": {"": ("_f",)}}, {"torch": {"NoClass": ("_f",)}}, {"torch": {"": ("_f",)}}]
)
def test_a_module_or_class_that_is_gone_is_named(anew, monkeypatch, where):
    monkeypatch.setitem(internals.TOUCHED, "torch", where)
    with pytest.raises(EnvironmentProblem, match=r"has no torch.*_f: "):
        internals.check_installed("torch")


def test_another_minor_release_of_energon_is_refused_and_of_torch_warned_of(anew, monkeypatch, caplog):
    monkeypatch.setattr(
        internals, "installed_version", lambda name: {"torch": "2.12.0", "megatron-energon": "7.5.0"}[name]
    )
    with pytest.raises(EnvironmentProblem, match=r"megatron-energon 7\.5\.0 is another release than 7\.4: "):
        internals.check_installed("megatron-energon")
    internals.check_installed("torch")
    assert [record.getMessage() for record in caplog.records] == [
        "torch 2.12.0 is another release than 2.11, for which the data loader was written"
    ]


@pytest.mark.parametrize("version", ["7.4.9", "7.4.0+nv26.08", "7.4.2.post1", "7.4.3rc1"])
def test_another_patch_is_fine(anew, monkeypatch, caplog, version):
    monkeypatch.setattr(internals, "installed_version", lambda name: version)
    internals.check_installed("megatron-energon")
    assert not caplog.records


@pytest.mark.parametrize(("version", "said"), [(None, "of unknown version"), ("main-2026", "main-2026")])
def test_a_version_that_is_no_number_is_refused_in_words(anew, monkeypatch, version, said):
    monkeypatch.setattr(internals, "installed_version", lambda name: version)
    with pytest.raises(EnvironmentProblem, match=f"{said}.*is not a version number"):
        internals.check_installed("megatron-energon")
