"""How answers are scored: strict equality after a small, fixed normalisation. Pure functions.

A record is a dictionary with at least kind, source, answer and prediction, as demo/answer.py writes them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

from demo.errors import DemoError

SCENES = "cenas"
_FINAL = " \t\r\n.,;:!?…"
_Z95 = 1.959964  # two-sided 95 % of the normal distribution


@dataclass(frozen=True)
class Tally:
    """How many questions were asked and how many of them were answered correctly."""

    asked: int = 0
    correct: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.asked + other.asked, self.correct + other.correct)

    @property
    def share(self) -> float:
        """Accuracy in 0..1; 0 where nothing was asked."""
        return self.correct / self.asked if self.asked else 0.0

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % score interval of the accuracy, in 0..1: what the number of questions can tell."""
        if not self.asked:
            return 0.0, 1.0
        n, p, z2 = self.asked, self.share, _Z95**2
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z95 * sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        return max(0.0, centre - half), min(1.0, centre + half)


def normalise(text: str) -> str:
    """Case folded, without outer spaces and final punctuation; nothing else is forgiven (accents count)."""
    return text.strip().casefold().rstrip(_FINAL)


def is_correct(prediction: str, answer: str) -> bool:
    """Whether the whole prediction equals the answer once both are normalised.

    Raises:
        DemoError: the answer is empty after normalisation, so that an empty prediction would pass.
    """
    expected = normalise(answer)
    if not expected:
        raise DemoError(f"the answer {answer!r} holds no word to compare with: correct the sample")
    return normalise(prediction) == expected


def tally(records: Iterable[dict]) -> Tally:
    """The score of all records together."""
    marks = [is_correct(record["prediction"], record["answer"]) for record in records]
    return Tally(len(marks), sum(marks))


def by_kind(records: Iterable[dict]) -> dict[str, Tally]:
    """The score of each kind of question, in the order in which the kinds first appear."""
    groups: dict[str, list[dict]] = {}
    for record in records:
        groups.setdefault(record["kind"], []).append(record)
    return {kind: tally(group) for kind, group in groups.items()}


def scene_accuracy(records: Iterable[dict]) -> Tally:
    """The score of the drawn scenes alone (source == "cenas"): the figure that the demo is judged by."""
    return tally(record for record in records if record["source"] == SCENES)


def table(records: list[dict]) -> str:
    """The scores as lines of text: one a kind, then the scenes, then all."""
    rows = [*by_kind(records).items(), ("scenes", scene_accuracy(records)), ("all", tally(records))]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {t.correct:>4} of {t.asked:<4} {t.share:>7.1%}" for name, t in rows)
