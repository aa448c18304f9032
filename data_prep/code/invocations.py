"""Calls of a function, proposed by a model and run in the sandbox (section 5.1, SePIC: "Gemma4-E4B generated
invocations (executed in a sandbox)").
"""

from __future__ import annotations

import ast
import builtins
from typing import Any

from data_prep.code.execution import Executor, UnusableError, program
from data_prep.code.filters import free_names
from data_prep.engine import Drop, Sample
from data_prep.models.ask import Request
from data_prep.models.prompts import load

LONGEST = 160  # characters of a call


async def propose(sample: Sample, run: Any, *, role: str, number: int, max_tokens: int, temperature: float) -> Any:
    """A sample for each call that the model proposes, at most `number`: "invocation", and the others as "siblings"."""
    prompt = load("code/invocations")
    items = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": number}
    schema = {"type": "object", "properties": {"invocations": items}, "required": ["invocations"]}
    text = prompt.render(codigo=sample["code"], nome=sample["name"], numero=number)
    messages = [{"role": "user", "content": text}]
    request = Request(
        role, messages, schema=schema, seed=run.seed, temperature=temperature, max_tokens=max_tokens, prompt=prompt.id
    )
    answer = await run.models.ask(request)
    calls = [" ".join(call.split()) if "\n" in call else call.strip() for call in answer.data["invocations"]]
    calls = list(dict.fromkeys(calls))
    return [sample | {"invocation": call, "siblings": [c for c in calls if c != call]} for call in calls]


def check_invocation(sample: Sample, run: Any) -> Sample:
    """Keeps a call of the function whose arguments need nothing but builtins and what the code itself imports."""
    if fault := invocation_fault(sample["invocation"], sample["name"], sample["code"]):
        raise Drop(fault, sample["invocation"][:200])
    siblings = [c for c in sample["siblings"] if invocation_fault(c, sample["name"], sample["code"]) is None]
    return sample | {"siblings": siblings}


def invocation_fault(call: str, name: str, code: str) -> str | None:
    """Why a text is no usable call of the function `name`, or None."""
    if len(call) > LONGEST or "\n" in call or not call.isprintable():
        return "invocation_too_long"
    try:
        tree = ast.parse(call, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "invocation_syntax"
    calls = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    if name not in calls or "print" in calls or any(isinstance(n, ast.NamedExpr | ast.Await) for n in ast.walk(tree)):
        return "invocation_of_something_else"
    known = {name, *dir(builtins)}
    known |= {alias.asname or alias.name.partition(".")[0] for node in ast.parse(code).body for alias in _aliases(node)}
    return "invocation_needs_more" if free_names(call) - known else None


def _aliases(node: ast.AST) -> list[ast.alias]:
    return node.names if isinstance(node, ast.Import | ast.ImportFrom) else []


async def execute(sample: Sample, run: Any, *, executor: Executor) -> Sample:
    """Adds "output", what the program prints; "program" is the function with its call, unless the sample has one."""
    code = sample.get("program") or program(sample["code"], sample["invocation"])
    try:
        return sample | {"program": code, "output": await executor.output_async(code)}
    except UnusableError as error:
        raise Drop(error.reason, error.note) from error
