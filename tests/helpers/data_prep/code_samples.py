"""Functions in CodeSearchNet's format and a scripted model, for the tests of the code data sets."""

import ast
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

from data_prep.models import prompts
from data_prep.models.ask import Answer

# name -> (licence, code, the calls that a model proposes: some are of no use)
FUNCTIONS = {
    "clamp": (
        "MIT",
        "def clamp(value, low, high):\n    # keep value inside\n    if value < low:\n        return low\n"
        "    if value > high:\n        return high\n    return value",
        ["clamp(12, 0, 10)", "clamp(-3, 0, 10)", "clamp(4, 0, 10)"],
    ),
    "count_vowels": (
        "Apache-2.0",
        "def count_vowels(text):\n    total = 0\n    for letter in text.lower():\n        if letter in 'aeiou':\n"
        "            total += 1\n    return total",
        ["count_vowels('Lisboa e Porto')", "count_vowels('xyz')", "count_vowels(12)"],
    ),
    "running_sums": (
        "BSD-3-Clause",
        "def running_sums(values):\n    sums, total = [], 0\n    for value in values:\n        total += value\n"
        "        sums.append(total)\n    return sums",
        ["running_sums([3, 1, 4, 1])", "running_sums([5, -2, 0, 2])", "running_sums(open('/etc/passwd'))"],
    ),
    "hypotenuse": (
        "MIT",
        "def hypotenuse(a, b):\n    squares = a ** 2 + b ** 2\n    return math.sqrt(squares)",
        ["hypotenuse(3, 4)", "hypotenuse(6, 8)", "other(1)"],
    ),
    "letters_of": (
        "MIT",
        "def letters_of(text):\n    found = set(text)\n    return list(found)",
        ["letters_of('azulejo')", "letters_of('saudade')", "letters_of('fado de Lisboa')"],
    ),
    "rotate": (
        "ISC",
        "def rotate(items, steps):\n    steps = steps % len(items)\n    return items[steps:] + items[:steps]",
        ["rotate([1, 2, 3, 4], 1)", "rotate('coimbra', 3)", "rotate([], 1)"],
    ),
    "wait": ("MIT", "def wait(n):\n    while n:\n        pass\n    return n", ["wait(1)", "wait(0)", "wait(2)"]),
    "copyleft": ("GPL-3.0", "def copyleft(a):\n    b = a\n    return b", ["copyleft(1)"]),
    "unknown": ("", "def unknown(a):\n    b = a\n    return b", ["unknown(1)"]),
    "method": ("MIT", "def method(self, a):\n    b = a\n    return b", []),
    "broken": ("MIT", "def broken(a):\n    print 'a'\n    return a", []),
    "elsewhere": ("MIT", "def elsewhere(a):\n    b = helper(a)\n    return b", []),
    "long": ("MIT", "def long(a):\n" + "    a += 1\n" * 60 + "    return a", []),
    "again": ("MIT", "def clamp(value, low, high):\n    if value < low:\n        return low\n\n    if value > high:\n"
              "        return high\n    return value", []),
}  # fmt: skip
SNIPPETS = {
    "pt-PT": [
        "preços = [3, 5, 8]\ntotal = sum(preços)\nprint('Total:', total)",
        "for i in range(1, 4):\n    print(i * '*')",
        "nome = 'Évora'\nprint(nome.upper()[1:3])",
        "import random\nprint(random.random())",
        "x = 1",
    ],
    "en": [
        "numbers = [4, 9, 2]\nprint(sorted(numbers)[0] + max(numbers))",
        "word = 'bridge'\nprint(word[::-1])\nprint(len(word) // 2)",
        "print(1 / 0)",
        "total = 0\nfor n in range(10):\n    if n % 3 == 0:\n        total += n\nprint(total)",
        "a = 1\nb = 2\n" + "a += b\n" * 12 + "print(a)",
    ],
}
KINDS = ("invocations", "snippets_pt", "snippets_en", "trace_pt", "trace_en")  # prompts/code
THOUGHTS = {
    "trace_pt": "Na chamada, {given}. Sigo as linhas de `{name}` com estes valores até à instrução return.",
    "trace_en": "In the call, {given}. I follow the lines of `{name}` with these values up to its return.",
}


def write_corpus(folder: Path) -> Path:
    """CodeSearchNet's .jsonl.gz with FUNCTIONS."""
    file = folder / "python_train_0.jsonl.gz"
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        for name, (licence, code, _) in FUNCTIONS.items():
            row = {"repo": "a/b", "path": f"{name}.py", "func_name": f"A.{name}", "original_string": code}
            row |= {"language": "python", "sha": "0123456789abcdef", "licence": licence}
            lines.write(json.dumps(row) + "\n")
    return file


def plain_output(program: str) -> str:
    """What a program of this file prints, by a plain interpreter: the peer of the sandbox."""
    command = [sys.executable, "-I", "-X", "utf8", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.rstrip("\n")


class ScriptedModels:
    """Proposes FUNCTIONS' calls and SNIPPETS, and thinks: at first wrongly about every third program."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    async def ask(self, request) -> Answer:
        """The scripted answer to a request; its prompt says which."""
        kind = request.prompt.partition("@")[0].rpartition("/")[2]
        data = self.answer(kind, request.messages[0]["content"], request.seed)
        return Answer(json.dumps(data), data, "scripted@1", 10, 5, 0.0, False, 1)

    def reply(self, body: dict, number: int) -> str:
        """The same as a script of model_double: the prompt is known by how its text begins."""
        text = body["messages"][0]["content"]
        starts = {name: prompts.load(f"code/{name}").text.partition("{{")[0] for name in KINDS}
        (kind,) = [name for name, start in starts.items() if text.startswith(start)]
        return json.dumps(self.answer(kind, text, body.get("seed")))

    def answer(self, kind: str, text: str, seed: int | None) -> dict:
        """What the model says to the prompt `kind`."""
        self.asked[kind] = self.asked.get(kind, 0) + 1
        if kind == "invocations":
            name = re.search(r"calls of `(\w+)`", text).group(1)
            return {"invocations": FUNCTIONS[name][2]}
        if kind.startswith("snippets"):
            return {"snippets": SNIPPETS["pt-PT" if kind.endswith("pt") else "en"]}
        program = re.search(r"```python\n(.*?)\n```", text, re.DOTALL).group(1)
        return self._thought(program, seed, THOUGHTS[kind])

    def _thought(self, program: str, seed: int, words: str) -> dict[str, str]:
        output = plain_output(program)
        if len(program) % 3 == 0 and seed == 0:
            return {"reasoning": "Vejo o resultado.", "answer": output + "0"}
        if "steps" in program and seed == 0:
            return {"reasoning": "Primeiro, `steps = 99`.", "answer": output}
        code, call = program.rstrip().rpartition("\n\n\nprint(")[::2]
        function = next(node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef))
        values = ast.parse(call.removesuffix(")"), mode="eval").body.args
        given = ", ".join(f"`{a.arg} = {ast.unparse(v)}`" for a, v in zip(function.args.args, values, strict=True))
        return {"reasoning": words.format(given=given, name=function.name), "answer": output + "\n"}

    async def aclose(self) -> None:
        """Nothing is open."""
