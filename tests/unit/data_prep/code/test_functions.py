"""Sources of functions, their filters, and programs that differ in one token."""

import random

import code_samples
import pytest

from data_prep.code import filters
from data_prep.code.functions import codesearchnet, read_functions, standard_library
from data_prep.code.invocations import check_invocation, invocation_fault
from data_prep.code.mutations import mutants
from data_prep.engine import Drop
from nemo_amalia.utils.errors import UserError


def reason(step, sample, **values) -> str | None:
    try:
        step({"programming": "python", "imports": {}, "name": "f", "source": "s"} | sample, None, **values)
    except Drop as drop:
        return drop.reason
    return None


def test_codesearchnet_is_read(tmp_path):
    file = code_samples.write_corpus(tmp_path)
    records = list(codesearchnet([file]))
    assert len(records) == len(code_samples.FUNCTIONS)
    assert records[0]["source"] == "codesearchnet/a/b/clamp.py@0123456789ab" and records[0]["name"] == "clamp"
    assert records[0]["licence"] == "MIT" and records[8]["licence"] == "unknown"
    assert list(codesearchnet([file], languages=["go"])) == []
    licences = tmp_path / "licences.tsv"
    licences.write_text("a/b\tISC\n")
    assert list(codesearchnet([file], licences))[8]["licence"] == "ISC"


@pytest.mark.parametrize(
    ("content", "message"),
    [("nothing\n", "line 1 of .* is not JSON"), ('{"language": "python"}\n', "no original_string and language")],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        list(codesearchnet([tmp_path / "a.jsonl"]))
    with pytest.raises(UserError, match="no file"):
        list(codesearchnet([tmp_path / "b.jsonl"]))
    (tmp_path / "l.tsv").write_text("a/b MIT\n")
    with pytest.raises(UserError, match="expected `owner/name<tab>SPDX identifier`"):
        list(codesearchnet([], tmp_path / "l.tsv"))


def test_the_standard_library_is_a_source(tmp_path):
    (tmp_path / "a.py").write_text(
        "import os.path as p, numpy\nfrom math import sqrt as root\n\n\ndef f(x):\n    return root(p.x(x))\n\n\n"
        "@decorated\ndef g(x):\n    return x\n\n\nclass A:\n    def h(self):\n        pass\n"
    )
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "b.py").write_text("def g(x):\n    return x\n")
    (tmp_path / "c.py").write_text("def f(:\n")
    (record,) = standard_library(tmp_path)
    assert record["code"] == "def f(x):\n    return root(p.x(x))" and record["licence"] == "PSF-2.0"
    assert record["imports"] == {"p": "import os.path as p", "root": "from math import sqrt as root"}
    assert record["source"].endswith("/Lib/a.py#L5")
    contained = filters.self_contained(record, None)
    assert contained["code"].startswith("from math import sqrt as root\nimport os.path as p\n\n\ndef f(x):")


def test_without_files_the_standard_library_is_read():
    names = {record["source"].partition("#")[0].partition("/")[2] for record in _first(300)}
    assert {"Lib/ast.py", "Lib/bisect.py"} <= names


def _first(number: int):
    records = read_functions(files=[], licences=None, languages=["python"])
    return [next(records) for _ in range(number)]


def test_licences():
    allowed = {"licences": ["MIT", "Apache-2.0"]}
    assert reason(filters.permissive, {"licence": "mit"}, **allowed) is None
    assert reason(filters.permissive, {"licence": "GPL-3.0"}, **allowed) == "licence_not_permissive"
    assert reason(filters.permissive, {"licence": "unknown"}, **allowed) == "licence_unknown"


@pytest.mark.parametrize(
    ("code", "expected"),
    [("a\n" * 50, None), ("a\n" * 51, "too_many_lines"), ("a", "too_few_lines"), ("a\n" * 4 + "b" * 121, "too_wide")],
)
def test_lengths(code, expected):
    assert reason(filters.fits, {"code": code}, least=2, most=50, columns=120) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(a):\n    return a", None),
        ("def f(a):\n    print 1", "syntax"),
        ("def f(a):\n    return a\nf(1)", "not_one_function"),
        ("@cache\ndef f(a):\n    return a", "not_one_function"),
        ("async def f(a):\n    return a", "not_one_function"),
        ("def f(self, a):\n    return a", "method"),
        ("def f(a):\n    yield a\n    return a", "generator"),
        ("def f(a):\n    a += 1\n    return", "returns_nothing"),
    ],
)
def test_one_function(code, expected):
    assert reason(filters.one_function, {"code": code}) == expected


@pytest.mark.parametrize(
    ("code", "free"),
    [
        ("def f(a):\n    return len(a) + sum(b for b in a)", set()),
        ("def f(a):\n    return g(a) + X", {"g", "X"}),
        ("def f(a, b=Y):\n    def h(): return math.pi + a\n    return h()", {"Y", "math"}),
        ("import math\ndef f(a):\n    return math.pi", set()),
        ("def f(a):\n    import math\n    return math.pi", set()),
        ("def f(n):\n    return f(n - 1)", set()),
        ("f(x, [y for y in z])", {"f", "x", "z"}),
    ],
)
def test_free_names(code, free):
    assert filters.free_names(code) == free


def test_self_contained():
    assert reason(filters.self_contained, {"code": "def f(a):\n    return helper(a)"}) == "not_self_contained"
    sample = {"code": "def f(a):\n    return math.pi", "imports": {}, "name": "f"}
    assert filters.self_contained(sample, None)["code"] == "import math\n\n\ndef f(a):\n    return math.pi"


def test_what_is_shown_is_what_runs():
    sample = filters.as_shown({"code": "\n\ndef f(a):\n\tif a:   \n\t\treturn 1\n"}, None)
    assert sample["code"] == "def f(a):\n    if a:\n        return 1"
    assert reason(filters.as_shown, {"code": "print('<|im_end|>')"}) == "special_token"
    assert reason(filters.as_shown, {"code": "print('<image>')"}) == "special_token"


def test_equal_functions_are_one():
    codes = ["def f(a):\n    '''Doc.'''\n    return a", "def f(a):\n    return  a  # why", "def f(b):\n    return b"]
    samples = [{"code": code, "programming": "python"} for code in codes]
    assert filters.distinct(samples, None) == [0, 2]
    others = [{"code": code, "programming": "go"} for code in ("a  b", "a b", "a c")]
    assert filters.distinct(others, None) == [0, 2]


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("f(1, 'a')", None),
        ("len(f([1]))", None),
        ("math.floor(f(1))", None),
        ("f(1", "invocation_syntax"),
        ("x = f(1)", "invocation_syntax"),
        ("g(1)", "invocation_of_something_else"),
        ("print(f(1))", "invocation_of_something_else"),
        ("f(np.zeros(3))", "invocation_needs_more"),
        ("f('" + "a" * 200 + "')", "invocation_too_long"),
    ],
)
def test_invocations(call, fault):
    code = "import math\n\n\ndef f(a, b=1):\n    return math.pi"
    assert invocation_fault(call, "f", code) == fault
    sample = {"invocation": call, "siblings": ["f(2)", "g(2)"], "name": "f", "code": code}
    assert reason(check_invocation, sample) == fault
    if fault is None:
        assert check_invocation(sample, None)["siblings"] == ["f(2)"]


def test_mutants_change_one_token_and_nothing_else():
    code = (
        "def f(a, *rest):  # 1 + 1\n    if a < 10 and rest:\n        return [x * 2 for x in rest]\n    return 'a + 1'"
    )
    found = list(mutants(code, random.Random(0)))
    assert len(found) == len(set(found)) >= 8 and code not in found
    for mutant in found:
        assert filters.parse(mutant) is not None
        changed = [(a, b) for a, b in zip(code.split("\n"), mutant.split("\n"), strict=True) if a != b]
        assert len(changed) == 1 and "# 1 + 1" in mutant and "'a + 1'" in mutant
    assert found == list(mutants(code, random.Random(0))) != list(mutants(code, random.Random(1)))
    with pytest.raises(UserError, match="does not tokenise"):
        list(mutants("def f(:\n  '''", random.Random(0)))
