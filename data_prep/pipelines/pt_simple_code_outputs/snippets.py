"""Programs of at most ten lines that a model writes about a topic (section 5.1: "short, executable Python snippets (max
10 lines) utilizing the print function").
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.code.filters import parse
from data_prep.code.wording import language_of
from data_prep.engine import Drop, Sample
from data_prep.models.ask import Request
from data_prep.models.prompts import load
from data_prep.seeds import choices
from nemo_amalia.variety.evidence import BRAZILIAN, evidence

TOPICS = Path(__file__).with_name("topics.tsv")
MARKS = re.compile(r"""^(?:#\s*|[a-zA-Z]{0,2}['"]{1,3})|['"]{1,3}$""")
PROMPTS = {"pt-PT": "code/snippets_pt", "en": "code/snippets_en"}


def topics(*, requests: int, portuguese: float, licence: str, seed: int) -> Iterator[dict[str, Any]]:
    """The source: a record for each request to the model, {"topic", "language", "number"}; topics take turns."""
    pairs = [line.split("\t") for line in TOPICS.read_text(encoding="utf-8").splitlines() if line]
    for number in range(requests):
        language = language_of(choices(seed, "language", number), portuguese)
        topic = dict(zip(("pt-PT", "en"), pairs[number % len(pairs)], strict=True))[language]
        source = f"written by a model about: {topic} ({number // len(pairs)})"
        yield {"source": source, "licence": licence, "topic": topic, "language": language, "number": number}


async def write(
    sample: Sample, run: Any, *, role: str, number: int, lines: int, max_tokens: int, temperature: float
) -> Any:
    """A sample for each program that the model writes, in "code"."""
    prompt = load(PROMPTS[sample["language"]])
    items = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": number}
    schema = {"type": "object", "properties": {"snippets": items}, "required": ["snippets"]}
    text = prompt.render(tema=sample["topic"], numero=number, linhas=lines)
    answer = await run.models.ask(
        Request(
            role,
            [{"role": "user", "content": text}],
            schema=schema,
            seed=run.seed + sample["number"],  # the same topic again must not give the same answer
            temperature=temperature,
            max_tokens=max_tokens,
            prompt=prompt.id,
        )
    )
    shared = {"language": sample["language"], "programming": "python"}
    return [shared | {"code": code} for code in answer.data["snippets"]]


def check_snippet(sample: Sample, run: Any, *, most: int, columns: int) -> Sample:
    """Keeps Python of at most `most` lines, blank ones counted, that calls print. Gives its "program"."""
    tree, rows = parse(sample["code"]), sample["code"].splitlines()
    if tree is None:
        raise Drop("syntax")
    if len(rows) > most:
        raise Drop("too_many_lines", str(len(rows)))
    if max(map(len, rows), default=0) > columns:
        raise Drop("too_wide")
    names = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    if "print" not in names:
        raise Drop("no_print")
    return sample | {"program": sample["code"]}


def check_variety(sample: Sample, run: Any) -> Sample:
    """Drops a program in pt-PT whose strings and comments are Brazilian."""
    if sample["language"] == "pt-PT" and evidence(prose := prose_of(sample["code"])).variety == BRAZILIAN:
        raise Drop("brazilian", prose[:200])
    return sample


def prose_of(code: str) -> str:
    """Strings and comments of a program, a line each. Its names are not words of a text."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            found.append(MARKS.sub("", token.string))
        elif token.type == tokenize.FSTRING_MIDDLE:
            found.append(token.string.strip())
    return "\n".join(found)
