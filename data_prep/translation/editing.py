"""What the editor is sent and sends back: the conversation as JSON, a glossary, the segments that are open."""

from __future__ import annotations

import json
from typing import Any

from data_prep.models import prompts
from data_prep.translation.work import Work

PROMPT, REPAIR = "translate/whole", "translate/repair"


def first_message(work: Work) -> str:
    """The conversation, with what is accepted shown translated, so that context and terms are seen; and the reasons
    why earlier translations were refused."""
    shown = []
    for index, segment in enumerate(work.segments):
        item = {"id": index, "papel": segment.role, "texto": segment.masked.core}
        if index in work.done or segment.settled is not None:
            item["traduzido"] = work.text(index)
        shown.append(item)
    known = [{"original": term, "traducao": translation} for term, translation in work.glossary]
    words = prompts.load(PROMPT).render(conversa=_json(shown), glossario=_json(known), pedidos=_json(work.open))
    return f"{words}\n\n{repair_message(work)}" if work.faults else words


def repair_message(work: Work) -> str:
    """The open segments, what was refused, and why."""
    items = [
        {
            "id": index,
            "original": work.segments[index].masked.core,
            "recusado": work.tried.get(index, ""),
            "motivos": [fault.detail for fault in work.faults.get(index, [])] or ["falta a tradução"],
        }
        for index in work.open
    ]
    return prompts.load(REPAIR).render(faltas=_json(items))


def schema(ids: list[int]) -> dict[str, Any]:
    """An answer that holds a glossary and each of these segments once."""
    term = {"original": {"type": "string"}, "traducao": {"type": "string"}}
    # A property a segment, not a list: what is missing or twice is then the schema's business, also for a server that
    # enforces it while it writes.
    texts = {str(index): {"type": "string"} for index in ids}
    return _object({"glossario": {"type": "array", "items": _object(term)}, "segmentos": _object(texts)})


def read(data: dict[str, Any]) -> tuple[list[tuple[str, str]], dict[int, str]]:
    """(glossary, text by segment) of an answer that the schema allows."""
    terms = [(entry["original"], entry["traducao"]) for entry in data["glossario"]]
    return terms, {int(index): text for index, text in data["segmentos"].items()}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
