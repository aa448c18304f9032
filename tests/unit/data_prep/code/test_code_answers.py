"""Answers about code: executions that are answers, wrong ones, chains of thought, formats, the independent check."""

import collections
import itertools
import random
import types

import pytest
from sandboxed import needs_sandbox

from data_prep.code import wording
from data_prep.code.distractors import with_distractors
from data_prep.code.execution import Bounds, Executor, UnusableError, comparable, program
from data_prep.code.mutations import mutants
from data_prep.code.questions import LETTERS, listed, placed, turns
from data_prep.code.recheck import MismatchError, Recheck, verify
from data_prep.config import PIPELINES
from data_prep.engine import Drop
from data_prep.engine.steps import Run
from data_prep.pipelines.pt_simple_code_outputs.formats import ask, choose_format
from data_prep.pipelines.pt_simple_code_outputs.snippets import check_snippet, check_variety, prose_of, topics
from data_prep.pipelines.sepic.trace import fault_of, recorded, think
from nemo_amalia.utils.errors import UserError

pytestmark = needs_sandbox
CODE = [PIPELINES / name / "questions.yaml" for name in ("sepic", "pt_outputs_to_code", "simple_code_ocr")]


@pytest.fixture(scope="module")
def executor():
    runner = Executor(2, {"wall_seconds": 30.0, "cpu_seconds": 1}, Bounds(200, 5, 60))
    yield runner
    runner.close()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print(6 * 7)", "42"),
        ("print('a')\nprint('b')\nprint()", "a\nb"),
        ("print({1, 2, 3})", "{1, 2, 3}"),
        ("print('Évora — 12,50 €')", "Évora — 12,50 €"),
        ("1 / 0", "raised"),
        ("x = 1", "no_output"),
        ("print(None)", "no_output"),
        ("print('x' * 61)", "output_too_long"),
        ("print('\\n'.join('abcdef'))", "output_too_long"),
        ("print(object())", "address_in_output"),
        ("print({'um', 'dois', 'três', 'quatro', 'cinco'})", "not_deterministic"),
        ("import random\nprint(random.random())", "not_deterministic"),
        ("import time\nprint(time.time_ns())", "not_deterministic"),
        ("print('a \\nb')", "unprintable"),
        ("print('\\x1b[1m')", "unprintable"),
        ("while True: pass", "limit_cpu"),
    ],
)
def test_an_output_is_an_answer_or_has_a_reason(executor, code, expected):
    try:
        assert executor.output(code) == expected
    except UnusableError as error:
        assert error.reason == expected


def test_unknown_limits_are_refused():
    with pytest.raises(UserError, match="'seconds'.*unknown.*cpu_seconds"):
        Executor(1, {"seconds": 1}, Bounds(1, 1, 1))


def test_wrong_outputs_are_wrong_by_execution(executor):
    code = "values = [3, 1, 2]\ntotal = 0\nfor v in values:\n    if v > 1:\n        total += v\nprint(total)"
    found = executor.others(mutants(code, random.Random(0)), ["5"], 3, 40)
    outputs = [output for _, output in found]
    assert len(set(outputs)) == 3 and "5" not in outputs
    assert all(executor.output(mutant) == output for mutant, output in found)
    with pytest.raises(UnusableError, match="few_distractors: 0 of 1"):
        executor.others(["print(5)", "1 / 0", "print('5 '.strip())"], ["5"], 1, 10)
    with pytest.raises(UnusableError, match="1 of 2"):
        executor.others((f"print({n})" for n in itertools.count()), [], 2, 1)


def test_the_right_option_is_any_of_them(executor):
    """Always the original, and it would be the one that the others resemble."""
    import asyncio

    sample = {"program": "print(10)", "output": "10", "key": "a"}
    shown = collections.Counter()
    for number in range(40):
        run = Run(number, "distract", "a")
        others = with_distractors(
            sample, run, ["print(11)", "print(10)", "print(12)"], number=2, tries=5, executor=executor
        )
        found = asyncio.run(others)
        assert sorted([found["output"], *(text for _, text in found["wrong"])]) == ["10", "11", "12"]
        assert found["program"] == f"print({found['output']})"
        shown[found["output"]] += 1
    assert set(shown) == {"10", "11", "12"} and max(shown.values()) < 25
    with pytest.raises(Drop, match="few_distractors"):
        asyncio.run(with_distractors(sample, Run(0, "d", "a"), ["print(10)"], number=1, tries=5, executor=executor))


def test_what_a_picture_cannot_tell_apart_is_equal():
    assert comparable("a  \n\tb\n\n") == comparable("a\n    b") != comparable("a\nb")


def test_a_chain_of_thought_is_held_against_the_execution(executor):
    code = program(
        "def f(n):\n    total = 0\n    for i in range(n):\n        total += i\n    return str(total)", "f(4)"
    )
    states = recorded(code, executor)
    assert states["total"] == ["0", "1", "3", "6"] and states["n"] == ["4"]
    good = "Começa com `total = 0`; depois `total = 3` e `total = 6`. `outra = 9`."
    assert fault_of(good, "6\n", "6", states) is None
    assert fault_of(good, "7", "6", states)[0] == "trace_wrong_answer"
    assert fault_of("Fica `total = 5`.", "6", "6", states) == ("trace_wrong_step", "total = 5 never holds")
    assert fault_of("```python\n```", "6", "6", states)[0] == "trace_format"
    assert fault_of("`x = {'a': 1,  'b': 2}`", "6", "6", {"x": ["{'b': 2, 'a': 1}"]}) is None
    assert fault_of("`x = 1.0`", "6", "6", {"x": ["1"]})[0] == "trace_wrong_step"
    assert fault_of("`x = True`", "6", "6", {"x": ["1"]})[0] == "trace_wrong_step"
    with pytest.raises(Drop, match="trace_unchecked"):
        recorded("for i in range(10 ** 5):\n    pass\nprint(1)", executor)


@pytest.mark.parametrize("file", CODE, ids=lambda file: file.parent.name)
def test_words_are_there_in_both_languages(file):
    words = wording.Wording(file)
    for kind, templates in words._kinds.items():
        values = {name: f"«{name}»" for name in wording._fields(templates["en"][0])}
        drawn = {words.draw(random.Random(n), kind, "pt-PT", **values) for n in range(60)}
        assert len(drawn) == len(templates["pt-PT"])
        assert all(value in text for value in values.values() for text in drawn)


def test_words_that_differ_are_refused(tmp_path):
    file = tmp_path / "q.yaml"
    file.write_text("a: {pt-PT: ['{x}'], en: ['{y}']}")
    with pytest.raises(UserError, match="take different values"):
        wording.Wording(file)
    file.write_text("a: {pt-PT: ['{x}']}")
    with pytest.raises(UserError, match=r"templates in \['pt-PT'\]"):
        wording.Wording(file)


def test_fences_hold_fences():
    text = "a\n```\nb\n```"
    assert wording.fenced(text, "python") == f"````python\n{text}\n````"


def test_letters_are_drawn_evenly():
    rng = random.Random(0)
    drawn = [placed(rng, "right", ["x", "y", "z"]) for _ in range(2000)]
    assert all(options[LETTERS.index(letter)] == "right" and len(set(options)) == 4 for options, letter in drawn)
    counts = collections.Counter(letter for _, letter in drawn)
    assert set(counts) == set(LETTERS) and max(counts.values()) < 2000 * 0.3


def test_special_tokens_are_dropped():
    for question, answer in (("<image>", "a"), ("a", "<|im_start|>")):
        with pytest.raises(Drop, match="special_token"):
            turns(question, answer)


PROGRAMS = {"p4": "4", "p5": "5", "p6": "6", "p7": "7", "stuck": None, "lines": "a\n b"}
BLOCKS = listed(["p4", "p5", "p6", "p7"], "python")


@pytest.mark.parametrize(
    ("kind", "question", "answer", "code", "right"),
    [
        ("direct", "?", "4", "p4", True),
        ("direct", "?", "Penso.\n\nResultado:\n\n```\n4\n```", "p4", True),
        ("direct", "?", "```\n5\n```", "p4", False),
        ("direct", "?", "```\na\n b\n```", "lines", True),
        ("direct", "?", "None", "stuck", False),
        ("yes_no", "É isto?\n\n```\n4\n```", "Sim.", "p4", True),
        ("yes_no", "É isto?\n\n```\n4\n```", "Não.", "p4", False),
        ("yes_no", "É isto?\n\n```\n5\n```", "Não. Imprime:\n\n```\n4\n```", "p4", True),
        ("yes_no", "É isto?\n\n```\n5\n```", "No. It prints:\n\n```\n5\n```", "p4", False),
        ("choose_output", listed(["4", "5", "6", "7"]), "A", "p4", True),
        ("choose_output", listed(["4", "5", "6", "7"]), "É a opção B.", "p4", False),
        ("choose_output", listed(["4", "5", "4", "7"]), "A", "p4", False),
        ("choose_output", listed(["a\n b", "5", "4", "7"]), "Resposta: A", "lines", True),
        ("choose_code", f"Qual?\n\n{BLOCKS}\n\nResponda.", "O programa C.", "p6", True),
        ("choose_code", f"Qual?\n\n{BLOCKS}", "C)", "p5", False),
        ("choose_code", listed(["p4", "p5", "stuck", "p7"], "python"), "A opção correta é a D.", "p7", True),
    ],
)
def test_the_independent_check(kind, question, answer, code, right):
    if right:
        verify(kind, question, answer, code, PROGRAMS.get)
    else:
        with pytest.raises(MismatchError):
            verify(kind, question, answer, code, PROGRAMS.get)


def snippet(code: str, output: str, wrong: list[str], kind: str) -> dict:
    sample = {"code": code, "program": code, "output": output, "format": kind, "language": "pt-PT", "key": "a"}
    return sample | {"wrong": [["print()", text] for text in wrong]}


@pytest.mark.parametrize("kind", ["direct", "yes_no", "multiple_choice"])
def test_formats_pass_the_check_that_knows_nothing_of_them(kind):
    with_lines = snippet("lines", "a\n b", ["b\n a", "a", "b"], kind)
    for number, sample in enumerate([snippet("p4", "4", ["5", "6", "7"], kind), with_lines] * 10):
        for language in wording.LANGUAGES:
            variants = ask(sample | {"language": language}, Run(number, "ask", "a"))["variants"]
            assert len(variants) == (2 if kind == "yes_no" else 1)
            for variant in variants:
                user, assistant = variant["messages"]
                question = user["content"][1]["text"]
                verify(variant["kind"], question, assistant["content"], sample["program"], PROGRAMS.get)
            if kind == "yes_no":
                said = [variant["messages"][1]["content"].startswith(("Sim", "Yes")) for variant in variants]
                assert said == [True, False]


async def _recheck(sample):
    check = Recheck(1, {})
    try:
        return await check(sample, None)
    finally:
        check.close()


def test_the_check_drops_all_of_a_program():
    import asyncio

    sample = snippet("print(2 + 2)", "4", ["5"], "yes_no")
    sample = ask(sample, Run(0, "ask", "a"))
    assert asyncio.run(_recheck(sample)) is sample
    with pytest.raises(Drop, match="recheck"):
        asyncio.run(_recheck(sample | {"program": "print(5)"}))


def test_formats_are_drawn_by_share():
    drawn = collections.Counter(
        choose_format({}, Run(0, "f", str(n)), shares={"yes_no": 0.2, "direct": 0.8})["format"] for n in range(1000)
    )
    assert set(drawn) == {"yes_no", "direct"} and 150 < drawn["yes_no"] < 250
    with pytest.raises(UserError, match="'essay' is unknown"):
        choose_format({}, Run(0, "f", "a"), shares={"essay": 1})


@pytest.mark.parametrize(
    ("code", "expected"),
    [("print(1)", None), ("x = 1", "no_print"), ("print(1", "syntax"), ("\n" * 10 + "print(1)", "too_many_lines"),
     ("print('" + "a" * 99 + "')", "too_wide")],
)  # fmt: skip
def test_snippets(code, expected):
    try:
        assert check_snippet({"code": code}, None, most=10, columns=100)["program"] == code and expected is None
    except Drop as drop:
        assert drop.reason == expected


def test_brazilian_snippets_are_dropped():
    code = "# Você está pegando o ônibus\nprint('Tela do celular', f'{1} esporte')"
    assert prose_of(code) == "Você está pegando o ônibus\nTela do celular\nesporte"
    with pytest.raises(Drop, match="brazilian"):
        check_variety({"code": code, "language": "pt-PT"}, None)
    assert check_variety({"code": code, "language": "en"}, None)
    assert check_variety({"code": "# O autocarro\nprint('Ecrã do telemóvel')", "language": "pt-PT"}, None)


class Thinker:
    """Answers by seed: a wrong output, a wrong step, Brazilian, right."""

    def __init__(self) -> None:
        self.seeds = []

    async def ask(self, request):
        """The scripted answer."""
        self.seeds.append(request.seed)
        reasoning, answer = [
            ("A soma é 4.", "4"),
            ("Fica `total = 2`.", "3"),
            ("Você está pegando o ônibus e a tela do celular está mostrando `total = 3`.", "3"),
            ("Fica `total = 3` e é isso que aparece no ecrã.", "3"),
        ][request.seed]
        return types.SimpleNamespace(data={"reasoning": reasoning, "answer": answer})


@pytest.mark.parametrize(
    ("tries", "ends"), [(1, "trace_wrong_answer"), (2, "trace_wrong_step"), (3, "trace_brazilian"), (4, None)]
)
def test_a_model_thinks_until_the_execution_agrees(executor, tries, ends):
    import asyncio

    run, sample = Run(0, "think", "a", Thinker()), {"program": "total = 1 + 2\nprint(total)", "output": "3"}
    settings = {"role": "r", "tries": tries, "max_tokens": 9, "temperature": 0.5, "executor": executor}
    try:
        thought = asyncio.run(think(sample | {"language": "pt-PT"}, run, **settings))
        assert ends is None and thought["reasoning"].startswith("Fica")
    except Drop as drop:
        assert drop.reason == ends
    assert run.models.seeds == list(range(tries))


def test_topics_take_turns_in_both_languages():
    records = list(topics(requests=200, portuguese=0.5, licence="CC0-1.0", seed=0))
    assert len({record["source"] for record in records}) == 200
    languages = collections.Counter(record["language"] for record in records)
    assert set(languages) == {"pt-PT", "en"} and min(languages.values()) > 70
