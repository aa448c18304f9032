"""Chains of thought: written by a model that does not see the answer, kept when the execution agrees (section 5.1,
SePIC: "paired with Gemma4-31B CoT traces").

Two things are checked against what really happened: the output that the model arrives at, and every `name = value` that
it claims on the way, where the program has a variable of that name. One in Portuguese also passes the pt-PT filter.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
from typing import Any

from data_prep.code.execution import Executor, UnusableError, comparable
from data_prep.code.filters import SPECIAL
from data_prep.engine import Drop, Sample
from data_prep.models.ask import Request
from data_prep.models.prompts import load
from nemo_amalia.variety.evidence import BRAZILIAN, evidence

PROMPTS = {"pt-PT": "code/trace_pt", "en": "code/trace_en"}
TEXT = {"type": "string", "minLength": 1}
SCHEMA = {
    "type": "object",
    "properties": {"reasoning": TEXT, "answer": TEXT},
    "required": ["reasoning", "answer"],
}
CLAIM = re.compile(r"`([A-Za-z_]\w*) = ([^`\n]+)`")
# Runs a program and prints the values that its variables had, at every line, as JSON: {name: [repr, ...]}; a program of
# too many steps gives null. Its own output is kept away.
RECORDER = """
import contextlib, io, json, sys
SEEN, LEFT = {{}}, [{steps}]
def note(frame, event, argument):
    if frame.f_code.co_filename != "shown.py":
        return None
    LEFT[0] -= 1
    for name, value in (frame.f_locals.items() if LEFT[0] > 0 else ()):
        if isinstance(value, (int, float, complex, str, bytes, list, tuple, dict, set, frozenset, range, type(None))):
            text = repr(value)
            if len(text) <= 200:
                SEEN.setdefault(name, {{}})[text] = True
    return note
code = compile({code!r}, "shown.py", "exec")
with contextlib.redirect_stdout(io.StringIO()):
    sys.settrace(note)
    exec(code, {{"__name__": "__main__"}})
    sys.settrace(None)
print(json.dumps({{name: list(texts) for name, texts in SEEN.items()}} if LEFT[0] > 0 else None))
"""
STEPS = 2000


async def think(
    sample: Sample, run: Any, *, role: str, tries: int, max_tokens: int, temperature: float, executor: Executor
) -> Sample:
    """Adds "reasoning". Asks up to `tries` times, each with a seed of its own; then drops by what was wrong last:
    trace_wrong_answer, trace_wrong_step, trace_format or trace_brazilian.
    """
    prompt = load(PROMPTS[sample["language"]])
    messages = [{"role": "user", "content": prompt.render(programa=sample["program"])}]
    states = await asyncio.to_thread(recorded, sample["program"], executor)
    fault = ("trace_wrong_answer", "")
    for attempt in range(tries):
        answer = await run.models.ask(
            Request(
                role,
                messages,
                schema=SCHEMA,
                seed=run.seed + attempt,
                temperature=temperature if attempt else 0.0,
                max_tokens=max_tokens,
                prompt=prompt.id,
            )
        )
        reasoning = answer.data["reasoning"].strip()
        found = fault_of(reasoning, answer.data["answer"], sample["output"], states)
        if found is None and sample["language"] == "pt-PT" and evidence(reasoning).variety == BRAZILIAN:
            found = ("trace_brazilian", reasoning[:200])
        if found is None:
            return sample | {"reasoning": reasoning}
        fault = found
    raise Drop(*fault)


def fault_of(reasoning: str, answer: str, output: str, states: dict[str, list[str]]) -> tuple[str, str] | None:
    """(reason, note) of what is wrong with a chain of thought, or None."""
    if comparable(answer) != comparable(output):
        return "trace_wrong_answer", f"{answer[:80]!r}, and it prints {output[:80]!r}"
    if "```" in reasoning or SPECIAL.search(reasoning):
        return "trace_format", ""
    for name, value in CLAIM.findall(reasoning):
        if name in states and not any(_equal(value.strip(), real) for real in states[name]):
            return "trace_wrong_step", f"{name} = {value[:80]} never holds"
    return None


def recorded(program: str, executor: Executor) -> dict[str, list[str]]:
    """Variable -> the reprs that it had. Raises Drop (trace_unchecked) on a program of more than STEPS steps, and where
    the sandbox could not record it.
    """
    try:
        text = executor.run_once(RECORDER.format(steps=STEPS, code=program))
    except UnusableError as error:
        raise Drop("trace_unchecked", str(error)) from error
    try:
        states = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Drop("trace_unchecked", "the record is no JSON") from error
    if not isinstance(states, dict):
        raise Drop("trace_unchecked", f"more than {STEPS} steps")
    return states


def _equal(claimed: str, real: str) -> bool:
    if claimed == real:
        return True
    try:
        values = ast.literal_eval(claimed), ast.literal_eval(real)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return False
    return type(values[0]) is type(values[1]) and values[0] == values[1]
