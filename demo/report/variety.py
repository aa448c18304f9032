"""The report's part on stage 3: how much pt-BR the answers about held-out drawings hold before and after it."""

from pathlib import Path
from typing import Any

from demo import score, variety
from demo.run_folder import RunInputs

EXAMPLES = 8


def figures(inputs: RunInputs) -> dict[str, tuple[float, float]]:
    """Compute the figures of stage 3 as (after stage 2, after stage 3).

    They are the share of pt-BR forms, of drawings named right in either variety, and of scene questions answered right.
    """
    both = (inputs.sft, inputs.after)
    forms = [variety.forms(records) for records in both]
    named = [score.Tally(*variety.named(records)) for records in both]
    scenes = [score.scene_accuracy(records) for records in both]
    return {
        "pt-BR forms in answers about drawings": (forms[0].brazilian_share, forms[1].brazilian_share),
        "drawings named right, in either variety": (named[0].share, named[1].share),
        "scene questions answered right": (scenes[0].share, scenes[1].share),
    }


def marked(text: str) -> list[tuple[str, str]]:
    """Cut an answer into (text, class): "br" or "pt" where it is a form of that variety, else ""."""
    parts, at = [], 0
    for begin, end, name in variety.spans(text):
        parts += [(text[at:begin], ""), (text[begin:end], "br" if name == "pt-BR" else "pt")]
        at = end
    return [part for part in (*parts, (text[at:], "")) if part[0]]


def examples(inputs: RunInputs) -> list[dict[str, Any]]:
    """Take the first drawings, as they come, with stage 2's answer and stage 3's."""
    pairs = [(s, a) for s, a in zip(inputs.sft, inputs.after, strict=True) if a["source"] == variety.DRAWINGS]
    return [
        {
            "image": Path(after["image"]).name,
            "question": after["question"],
            "answer": after["answer"],
            "was": marked(sft["prediction"]),
            "now": marked(after["prediction"]),
        }
        for sft, after in pairs[:EXAMPLES]
    ]


def section(inputs: RunInputs) -> dict[str, Any]:
    """Gather what the report says about stage 3: counts of forms, figures and examples."""
    was, now = variety.forms(inputs.sft), variety.forms(inputs.after)
    return {
        "answers": now.answers,
        "was": was,
        "now": now,
        "figures": figures(inputs),
        "examples": examples(inputs),
    }
