"""What a newcomer may rely on: small folders, short functions, nothing of this machine in what is committed."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FUNCTION, MODULES_IN_A_FOLDER = 60, 24
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def tracked(*patterns: str) -> list[Path]:
    """Files that git tracks or would add (the whole folder where there is no git)."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_functions_stay_short():
    long = []
    for path in tracked("nemo_amalia/*.py", "demo/*.py", "data_prep/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, FUNCTION) and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION:
                long.append(f"{path.relative_to(ROOT)}: {node.name} has {node.end_lineno - node.lineno + 1} lines")
    assert not long, "\n".join(long)


def test_folders_stay_small():
    """A folder is one concern: where it has more modules, one of them is a folder that nobody made."""
    modules = Counter(path.parent for path in tracked("*.py") if not path.name.startswith(("test_", "__init__")))
    large = {str(folder.relative_to(ROOT)): n for folder, n in modules.items() if n > MODULES_IN_A_FOLDER}
    assert not large


def test_every_top_folder_has_a_short_readme():
    folders = {path.relative_to(ROOT).parts[0] for path in tracked("*.py", "*.yaml", "*.sh") if path.parent != ROOT}
    folders -= {".ci", "scripts", ".github"}
    assert folders >= {"nemo_amalia", "data_prep", "demo", "conf", "tests", "slurm", "benchmarks"}
    pages = [ROOT / name / "README.md" for name in sorted(folders)]
    pages += [
        path / "README.md" for path in sorted((ROOT / "nemo_amalia").iterdir()) if (path / "__init__.py").is_file()
    ]
    wrong = [
        str(page.relative_to(ROOT)) for page in pages if not page.is_file() or len(page.read_text().split("\n")) > 16
    ]
    assert not wrong, f"no README.md, or one of more than 15 lines: {wrong}"


def test_no_lock_file_registry_host_or_machine_path():
    forbidden = re.compile(r"files\.pythonhosted|/pypi/simple|(?<![\w.])/work/(?:main|shared)|/root/")
    wrong = []
    for path in tracked():
        if path == Path(__file__).resolve() or path.suffix in {".safetensors", ".png", ".jpg", ".gif"}:
            continue
        if path.name in {"uv.lock", "poetry.lock", "package-lock.json"}:
            wrong.append(f"{path.relative_to(ROOT)} is a lock file")
        match = forbidden.search(path.read_text(errors="replace"))
        if match:
            wrong.append(f"{path.relative_to(ROOT)} holds {match.group(0)!r}")
    assert not wrong, "\n".join(wrong)


def test_public_functions_say_what_they_do():
    bare = []
    for path in tracked("nemo_amalia/*.py", "data_prep/*.py"):
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree) and path.read_text().strip():
            bare.append(f"{path.relative_to(ROOT)}: no module docstring")
        for node in tree.body:
            public = isinstance(node, FUNCTION | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                bare.append(f"{path.relative_to(ROOT)}: {node.name} has no docstring")
    assert not bare, "\n".join(bare)


def test_no_two_test_files_share_a_name():
    """pytest collects the second of them as the first: tests are no packages here."""
    names = Counter(path.name for path in tracked("tests/*.py"))
    assert not [name for name, number in names.items() if number > 1 and name not in ("__init__.py", "conftest.py")]
