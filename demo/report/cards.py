"""The gallery of the report: a card a question and the buttons that filter them."""

from html import escape
from pathlib import Path

from demo.run_folder import KIND_NAMES, RunInputs
from demo.score import is_correct

#: data-outcome -> the button's text. A card may have several.
OUTCOMES = {"all": "all", "right": "right", "wrong": "wrong", "learnt": "learnt", "lost": "lost"}
_HINTS = {"learnt": "wrong before training, right after", "lost": "right before training, wrong after"}


def outcomes(before: dict, after: dict) -> list[str]:
    """The outcomes that a question counts under: right or wrong now, and learnt or lost where that changed."""
    was, now = (is_correct(record["prediction"], record["answer"]) for record in (before, after))
    changed = [] if was == now else ["learnt" if now else "lost"]
    return ["right" if now else "wrong", *changed]


def _button(filter_: str, value: str, text: str, number: int, hint: str = "") -> str:
    pressed = "true" if value == "all" else "false"
    title = f' title="{hint}"' if hint else ""
    return (
        f'<button type="button" data-filter="{filter_}" data-value="{escape(value)}" aria-pressed="{pressed}"{title}>'
        f"{escape(text)} <small>{number}</small></button>"
    )


def outcome_buttons(inputs: RunInputs) -> str:
    """One button an outcome, with its number of questions."""
    found = [o for pair in zip(inputs.struck, inputs.after, strict=True) for o in ("all", *outcomes(*pair))]
    return "\n".join(
        _button("outcome", value, text, found.count(value), _HINTS.get(value, "")) for value, text in OUTCOMES.items()
    )


def kind_buttons(inputs: RunInputs) -> str:
    """One button a kind of question, with its number of questions."""
    kinds = [record["kind"] for record in inputs.after]
    buttons = [_button("kind", "all", "every kind", len(kinds))]
    buttons += [_button("kind", kind, KIND_NAMES.get(kind, kind), kinds.count(kind)) for kind in dict.fromkeys(kinds)]
    return "\n".join(buttons)


def _mark(right: bool) -> str:
    sign, text = ("✓", "right: ") if right else ("✗", "wrong: ")
    return f'<span class="mark" role="img" aria-label="{text}">{sign}</span>'


def card(before: dict, after: dict) -> str:
    """One question: picture, question, the answer before, the answer now and, where wrong, what it should be."""
    found = outcomes(before, after)
    right = found[0] == "right"
    kind = KIND_NAMES.get(after["kind"], after["kind"])
    question, answer = escape(after["question"]), escape(after["answer"])
    was = escape(before["prediction"]) or "(nothing)"
    now = escape(after["prediction"]) or "(nothing)"
    was_mark = _mark(is_correct(before["prediction"], before["answer"]))
    expected = "" if right else f'<small>right answer: <span lang="pt">{answer}</span></small>'
    alt = f"Held-out picture for the question “{question}”; the right answer is “{answer}”"
    return (
        f'<article class="card" data-kind="{escape(after["kind"])}" data-outcome="{" ".join(found)}">'
        f'<div class="picture"><img src="images/{escape(Path(after["image"]).name)}" alt="{alt}" loading="lazy"></div>'
        f'<div class="text"><span class="kind">{escape(kind)}</span><p class="question" lang="pt">{question}</p>'
        f'<p class="was">{was_mark}<del lang="pt">{was}</del></p>'
        f'<p class="now {found[0]}">{_mark(right)}<span lang="pt">{now}</span>{expected}</p></div></article>'
    )


def cards(inputs: RunInputs) -> str:
    """Every question's card, in the order of the evaluation."""
    return "\n".join(card(*pair) for pair in zip(inputs.struck, inputs.after, strict=True))
