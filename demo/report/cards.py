"""The gallery of the report: a card per question and the buttons that filter them."""

from dataclasses import dataclass
from pathlib import Path

from demo.run_folder import KIND_NAMES, RunInputs
from demo.score import is_correct

#: data-outcome -> the button's text. A card may have several.
OUTCOMES = {"all": "all", "right": "right", "wrong": "wrong", "learnt": "learnt", "lost": "lost"}
_HINTS = {"learnt": "wrong before training, right after", "lost": "right before training, wrong after"}


@dataclass(frozen=True)
class Button:
    """Shows the `number` cards whose data attribute `filter` holds `value`."""

    filter: str
    value: str
    text: str
    number: int
    hint: str = ""


@dataclass(frozen=True)
class Card:
    """One question: its image (a file name), the answer before, the answer now and the right one."""

    kind: str
    kind_name: str
    outcomes: list[str]
    image: str
    question: str
    answer: str
    was: str
    was_right: bool
    now: str

    @property
    def right(self) -> bool:
        return self.outcomes[0] == "right"


def outcomes(before: dict, after: dict) -> list[str]:
    """List the outcomes that a question counts under: right or wrong now, and learnt or lost where that changed."""
    was, now = (is_correct(record["prediction"], record["answer"]) for record in (before, after))
    changed = [] if was == now else ["learnt" if now else "lost"]
    return ["right" if now else "wrong", *changed]


def outcome_buttons(inputs: RunInputs) -> list[Button]:
    """Make a button per outcome, with its number of questions."""
    found = [o for pair in zip(inputs.struck, inputs.after, strict=True) for o in ("all", *outcomes(*pair))]
    return [
        Button("outcome", value, text, found.count(value), _HINTS.get(value, "")) for value, text in OUTCOMES.items()
    ]


def kind_buttons(inputs: RunInputs) -> list[Button]:
    """Make a button per kind of question, with its number of questions."""
    kinds = [record["kind"] for record in inputs.after]
    buttons = [Button("kind", "all", "every kind", len(kinds))]
    return buttons + [Button("kind", k, KIND_NAMES.get(k, k), kinds.count(k)) for k in dict.fromkeys(kinds)]


def card(before: dict, after: dict) -> Card:
    """Compare the two answers to one question."""
    return Card(
        kind=after["kind"],
        kind_name=KIND_NAMES.get(after["kind"], after["kind"]),
        outcomes=outcomes(before, after),
        image=Path(after["image"]).name,
        question=after["question"],
        answer=after["answer"],
        was=before["prediction"],
        was_right=is_correct(before["prediction"], before["answer"]),
        now=after["prediction"],
    )


def cards(inputs: RunInputs) -> list[Card]:
    """Make every question's card, in the order of the evaluation."""
    return [card(*pair) for pair in zip(inputs.struck, inputs.after, strict=True)]
