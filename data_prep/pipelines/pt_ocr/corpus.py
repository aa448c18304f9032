"""The built-in seed corpus: paragraphs of corpus.txt with their sentences marked by hand -> documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from data_prep.pipelines.pt_ocr.slots import Slots
from data_prep.seeds import how_many
from nemo_amalia.utils.errors import ConfigError

FOLDER = Path(__file__).parent
LICENCE = "CC0-1.0"


@dataclass(frozen=True, slots=True)
class Passage:
    """lines: its sentences; with `rows`, lines that stay lines."""

    id: str
    register: str
    rows: bool
    lines: tuple[str, ...]


@lru_cache(maxsize=1)
def passages() -> tuple[Passage, ...]:
    """All of corpus.txt. Raises ConfigError on a heading of another form and on an id that is repeated."""
    found: list[Passage] = []
    for part in (FOLDER / "corpus.txt").read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, *lines = [line for line in part.split("\n") if line and not line.startswith("#")]
        words = heading.split()
        if (
            not lines
            or len(words) not in (2, 3)
            or words[2:] not in ([], ["rows"])
            or words[0] in {p.id for p in found}
        ):
            raise ConfigError(f"corpus.txt, '## {heading}': expected '## id register [rows]', a new id, lines below")
        found.append(Passage(words[0], words[1], len(words) == 3, tuple(lines)))
    return tuple(found)


@lru_cache(maxsize=1)
def _titles() -> dict[str, list[str]]:
    import yaml

    return yaml.safe_load((FOLDER / "titles.yaml").read_text(encoding="utf-8"))


def document(rng: Random, paragraphs: Sequence[float], rows: float, titled: float) -> dict[str, Any]:
    """A document of one register: {"id", "text", "sentences", "title"}.

    paragraphs: weights of 1, 2, ... paragraphs (fewer where a register has fewer; 5 or more mix registers). rows,
    titled: shares of documents. sentences: as the corpus marks them, None where the text has rows or a title, of which
    nobody can say how many sentences they are.
    """
    if rng.random() < rows:
        passage, slots = rng.choice([p for p in passages() if p.rows]), Slots(rng)
        text = "\n".join(" ".join(slots.fill(line).split()) for line in passage.lines)
        return {"id": passage.id, "text": text, "sentences": None, "title": ""}
    prose = [p for p in passages() if not p.rows]
    number = how_many(rng, paragraphs)
    first = rng.choice(prose)
    near = prose if number >= 5 else [p for p in prose if p.register == first.register]
    rest = [p for p in near if p is not first]
    chosen = [first, *rng.sample(rest, min(number - 1, len(rest)))]
    blocks = [list(map(Slots(rng).fill, passage.lines)) for passage in chosen]
    title = rng.choice(_titles()[first.register]) if rng.random() < titled and number < 5 else ""
    text = "\n\n".join([*([title] if title else []), *(" ".join(block) for block in blocks)])
    sentences = None if title else [sentence for block in blocks for sentence in block]
    return {"id": "+".join(p.id for p in chosen), "text": text, "sentences": sentences, "title": title}
