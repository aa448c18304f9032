"""How an answer is to be written. Each format writes an answer and reads it back, so that it can be checked.

The payload is a list of texts (transcription: one for each document asked for), a sentence (str), a number (int) or a
verdict (Verdict). Which format serves which, and the Portuguese instructions, are in phrasings.yaml.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any
from xml.etree import ElementTree

from nemo_amalia.utils.errors import ConfigError

WORDS = (
    "zero uma duas três quatro cinco seis sete oito nove dez onze doze treze catorze quinze dezasseis dezassete "
    "dezoito dezanove"
).split()
TENS = dict(
    zip(range(20, 100, 10), "vinte trinta quarenta cinquenta sessenta setenta oitenta noventa".split(), strict=True)
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a candidate transcription is right; text: the right one where it is not."""

    right: bool
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """write(payload, rng) -> answer; read(answer) -> payload; fits(payload): whether it can be written so."""

    write: Callable[[Any, Random], str]
    read: Callable[[str], Any]
    fits: Callable[[Any], bool] = lambda payload: True


def number_words(number: int) -> str:
    """1 to 99 as it is written before a feminine noun (frases). Raises ConfigError outside of that."""
    if not 1 <= number < 100:
        raise ConfigError(f"{number} is not written in words: expected 1 to 99")
    if number < len(WORDS):
        return WORDS[number]
    ten, one = divmod(number, 10)
    return TENS[10 * ten] + (f" e {WORDS[one]}" if one else "")


_NUMBERS = {number_words(n): n for n in range(1, 100)}


def _json(content: Any, rng: Random) -> str:
    return json.dumps(content, ensure_ascii=False, indent=rng.choice((None, 2)))


def _xml(tag: str, text: str) -> str:
    return f"<{tag}>{html.escape(text, quote=False)}</{tag}>"


def _rows(heads: tuple[str, str], cells: list[tuple[str, str]]) -> str:
    """A Markdown table; bars are escaped, line ends are <br>."""
    shown = [[c.replace("|", "\\|").replace("\n", "<br>") for c in row] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ("---", "---"), *shown])


def _cells(table: str) -> list[list[str]]:
    rows = [re.split(r"(?<!\\)\|", line.strip()[1:-1]) for line in table.split("\n")[2:]]
    return [[c.strip().replace("\\|", "|").replace("<br>", "\n") for c in row] for row in rows]


def _table_safe(texts: list[str]) -> bool:
    return not any("<br>" in t or "\\" in t for t in texts)


def _blocks(text: str) -> tuple[list[str], str]:
    """The parts that a list of one text has, and what joins them: its paragraphs, or the rows of a single one."""
    blocks = text.split("\n\n")
    return (blocks, "\n\n") if len(blocks) > 1 else (text.split("\n"), "\n")


def _numbered(text: str) -> str:
    parts, joint = _blocks(text)
    return joint.join(f"{n}. {part}" for n, part in enumerate(parts, 1))


def _unnumbered(answer: str) -> list[str]:
    parts, joint = _blocks(answer)
    return [joint.join(part.removeprefix(f"{n}. ") for n, part in enumerate(parts, 1))]


def _one(
    write: Callable[[str, Random], str], read: Callable[[str], str], fits: Callable[[str], bool] = lambda t: True
) -> Format:
    """A format of one text."""
    return Format(lambda texts, rng: write(texts[0], rng), lambda answer: [read(answer)], lambda texts: fits(texts[0]))


def _unquoted(answer: str) -> str:
    return answer[1:-1]


def _headings(texts: list[str], rng: Random) -> str:
    return "\n\n".join(f"## Documento {n}\n\n{text}" for n, text in enumerate(texts, 1))


def _documents_xml(texts: list[str], rng: Random) -> str:
    return "<documentos>\n" + "\n".join(_xml("documento", text) for text in texts) + "\n</documentos>"


TRANSCRIPTION: dict[str, Format] = {
    "plain": _one(lambda t, r: t, str),
    "quoted": _one(lambda t, r: f"«{t}»", _unquoted),
    "json": _one(lambda t, r: _json({"texto": t}, r), lambda a: json.loads(a)["texto"]),
    "json_paragraphs": _one(
        lambda t, r: _json({"paragrafos": t.split("\n\n")}, r), lambda a: "\n\n".join(json.loads(a)["paragrafos"])
    ),
    "json_lines": _one(
        lambda t, r: _json({"linhas": t.split("\n")}, r),
        lambda a: "\n".join(json.loads(a)["linhas"]),
        lambda t: "\n" in t and "\n\n" not in t,
    ),
    "markdown_quote": _one(
        lambda t, r: "\n".join(f"> {line}".rstrip() for line in t.split("\n")),
        lambda a: "\n".join(line.removeprefix(">").removeprefix(" ") for line in a.split("\n")),
    ),
    "code_block": _one(lambda t, r: f"```\n{t}\n```", lambda a: a[4:-4], lambda t: "```" not in t),
    "table": _one(
        lambda t, r: _rows(("Parágrafo", "Texto"), [(str(n), p) for n, p in enumerate(t.split("\n\n"), 1)]),
        lambda a: "\n\n".join(row[1] for row in _cells(a)),
        lambda t: "\n\n" in t and _table_safe([t]),
    ),
    "table_lines": _one(
        lambda t, r: _rows(("Linha", "Texto"), [(str(n), p) for n, p in enumerate(t.split("\n"), 1)]),
        lambda a: "\n".join(row[1] for row in _cells(a)),
        lambda t: "\n" in t and "\n\n" not in t and _table_safe([t]),
    ),
    "numbered": Format(
        lambda texts, r: _numbered(texts[0]),
        _unnumbered,
        lambda texts: len(_blocks(texts[0])[0]) > 1,
    ),
    "xml": _one(lambda t, r: _xml("texto", t), lambda a: ElementTree.fromstring(a).text),
}

ALL_DOCUMENTS: dict[str, Format] = {
    "json": Format(lambda t, r: _json({"documentos": t}, r), lambda a: json.loads(a)["documentos"]),
    "headings": Format(_headings, lambda a: re.split(r"(?:\n\n)?## Documento \d+\n\n", a)[1:]),
    "separator": Format(lambda t, r: "\n\n---\n\n".join(t), lambda a: a.split("\n\n---\n\n")),
    "table": Format(
        lambda t, r: _rows(("Documento", "Texto"), [(str(n), text) for n, text in enumerate(t, 1)]),
        lambda a: [row[1] for row in _cells(a)],
        _table_safe,
    ),
    "xml": Format(_documents_xml, lambda a: [node.text for node in ElementTree.fromstring(a)]),
}

SENTENCE: dict[str, Format] = {
    "plain": Format(lambda s, r: s, str),
    "quoted": Format(lambda s, r: f"«{s}»", _unquoted),
    "double_quoted": Format(lambda s, r: f"“{s}”", _unquoted),
    "json": Format(lambda s, r: _json({"frase": s}, r), lambda a: json.loads(a)["frase"]),
    "bold": Format(lambda s, r: f"**{s}**", lambda a: a[2:-2], lambda s: "*" not in s),
    "markdown_quote": Format(lambda s, r: f"> {s}", lambda a: a[2:]),
    "xml": Format(lambda s, r: _xml("frase", s), lambda a: ElementTree.fromstring(a).text),
}

COUNT: dict[str, Format] = {
    "plain": Format(
        lambda n, r: f"O texto tem {n} frase{'s' if n > 1 else ''}.", lambda a: int(re.search(r"\d+", a)[0])
    ),
    "digits": Format(lambda n, r: str(n), int),
    "words": Format(lambda n, r: number_words(n), _NUMBERS.__getitem__, lambda n: 1 <= n < 100),
    "json": Format(lambda n, r: _json({"frases": n}, r), lambda a: json.loads(a)["frases"]),
    "table": Format(
        lambda n, r: _rows(("Elemento", "Quantidade"), [("Frases", str(n))]), lambda a: int(_cells(a)[0][1])
    ),
    "bold": Format(lambda n, r: f"**{n}**", lambda a: int(a[2:-2])),
}

RIGHT = (
    "Sim, a transcrição está correta.",
    "Sim, corresponde exatamente ao texto da imagem.",
    "Sim. O texto está bem transcrito.",
)
WRONG = (
    "Não, a transcrição não está correta. O texto certo é:\n\n",
    "Não. Na imagem lê-se:\n\n",
    "Não corresponde ao que está na imagem. A transcrição correta é:\n\n",
)


def _said(verdict: Verdict, rng: Random) -> str:
    return rng.choice(RIGHT) if verdict.right else rng.choice(WRONG) + verdict.text


def _heard(answer: str) -> Verdict:
    if answer in RIGHT:
        return Verdict(True)
    return next(Verdict(False, answer[len(start) :]) for start in WRONG if answer.startswith(start))


def _verdict_table(verdict: Verdict, rng: Random) -> str:
    return _rows(("Correta", "Texto correto"), [("Sim", "—") if verdict.right else ("Não", verdict.text)])


def _from_table(answer: str) -> Verdict:
    said, text = _cells(answer)[0]
    return Verdict(True) if said == "Sim" else Verdict(False, text)


def _verdict_xml(verdict: Verdict, rng: Random) -> str:
    inner = _xml("correta", "sim") if verdict.right else _xml("correta", "não") + "\n" + _xml("texto", verdict.text)
    return f"<resposta>\n{inner}\n</resposta>"


def _from_xml(answer: str) -> Verdict:
    node = ElementTree.fromstring(answer)
    return Verdict(node.findtext("correta") == "sim", node.findtext("texto"))


def _markdown(verdict: Verdict, rng: Random) -> str:
    return (
        "**Correta**"
        if verdict.right
        else "**Incorreta**\n\n" + TRANSCRIPTION["markdown_quote"].write([verdict.text], rng)
    )


def _from_markdown(answer: str) -> Verdict:
    head, _, quote = answer.partition("\n\n")
    return Verdict(True) if head == "**Correta**" else Verdict(False, TRANSCRIPTION["markdown_quote"].read(quote)[0])


VERDICT: dict[str, Format] = {
    "plain": Format(_said, _heard),
    "json": Format(
        lambda v, r: _json({"correta": True} if v.right else {"correta": False, "texto": v.text}, r),
        lambda a: Verdict(json.loads(a)["correta"], json.loads(a).get("texto")),
    ),
    "table": Format(_verdict_table, _from_table, lambda v: v.right or _table_safe([v.text])),
    "markdown": Format(_markdown, _from_markdown),
    "xml": Format(_verdict_xml, _from_xml),
}

FORMATS: dict[str, dict[str, Format]] = {
    "transcription": TRANSCRIPTION,
    "all_documents": ALL_DOCUMENTS,
    "sentence": SENTENCE,
    "count": COUNT,
    "hallucination": VERDICT,
}
