"""Questions about documents, with their answers: the three tasks of PT-OCR (paper, section 5.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from data_prep.pipelines.pt_ocr.candidates import candidate
from data_prep.pipelines.pt_ocr.formats import FORMATS, Verdict
from data_prep.seeds import how_many, weighted
from data_prep.text.sentences import sentences

SENTENCE_KINDS = ("first", "last", "nth", "count")
CANDIDATE_LOOKS = ("{}", "«{}»", "```\n{}\n```", "---\n{}\n---")


@dataclass(frozen=True, slots=True)
class Turn:
    """facts: what verify.py needs: task (of FORMATS), format, target (index of a document, None for all), and which, n
    (sentence), candidate, kind (hallucination).
    """

    question: str
    answer: str
    facts: dict[str, Any]


@lru_cache(maxsize=1)
def phrasings() -> dict[str, Any]:
    """phrasings.yaml."""
    import yaml

    return yaml.safe_load((Path(__file__).with_name("phrasings.yaml")).read_text(encoding="utf-8"))


def ask(
    task: str, documents: Sequence[Mapping[str, Any]], arrangement: str, spare: Sequence[str], rng: Random, wrong: float
) -> Turn | None:
    """A turn of a task (transcription, sentence, hallucination), None where these documents do not allow it.

    arrangement: one, images, row, column or grid. wrong: share of candidate transcriptions that are wrong.
    """
    if task == "transcription" and len(documents) > 1 and rng.random() < 0.4:
        return _all_documents(documents, rng)
    open_to = range(len(documents)) if task != "sentence" else [i for i, d in enumerate(documents) if _counted(d)]
    if not open_to:
        return None
    target = rng.choice(list(open_to))
    words = dict(zip(("de", "em"), _where(target, len(documents), arrangement, rng), strict=True))
    make = {"transcription": _transcription, "sentence": _sentence, "hallucination": _hallucination}[task]
    return make(documents[target], target, words, rng, spare, wrong)


def _counted(document: Mapping[str, Any]) -> bool:
    return document["sentences"] is not None and len(document["sentences"]) > 1


def _where(target: int, number: int, arrangement: str, rng: Random) -> tuple[str, str]:
    """How a document is called: ("do segundo documento", "no segundo documento")."""
    said, ordinals = phrasings()["targets"], phrasings()
    if arrangement == "one":
        return tuple(rng.choice(said["one"]))
    places = said.get(arrangement, {})
    if isinstance(places, dict) and number in places and rng.random() < 0.5:
        return f"do documento {places[number][target]}", f"no documento {places[number][target]}"
    de, em = rng.choice(said[arrangement] if arrangement in ("images", "grid") else said["ordinal"])
    words = {"o": ordinals["ordinals"][target], "om": ordinals["ordinals_m"][target], "n": target + 1}
    return de.format(**words), em.format(**words)


def _turn(
    task: str, wording: str, payload: Any, words: dict[str, Any], facts: dict[str, Any], rng: Random
) -> Turn | None:
    """The question with a format that the payload allows, and the answer in it."""
    allowed = [name for name, form in FORMATS[task].items() if form.fits(payload)]
    if not allowed:
        return None
    name = rng.choice(allowed)
    question = rng.choice(phrasings()["tasks"][wording]).format(**words)
    if how := rng.choice(phrasings()["formats"][task][name]):
        question += ("\n\n" if question.endswith(str(words.get("candidato"))) else " ") + how
    answer = FORMATS[task][name].write(payload, rng)
    return Turn(question, answer, {"task": task, "format": name} | facts)


def _all_documents(documents: Sequence[Mapping[str, Any]], rng: Random) -> Turn | None:
    words = {"quantos": phrasings()["quantities"][len(documents)]}
    return _turn("all_documents", "all_documents", [d["text"] for d in documents], words, {"target": None}, rng)


def _transcription(document: Mapping[str, Any], target: int, words: dict, rng: Random, *_: Any) -> Turn | None:
    return _turn("transcription", "transcription", [document["text"]], words, {"target": target}, rng)


def _sentence(document: Mapping[str, Any], target: int, words: dict, rng: Random, *_: Any) -> Turn | None:
    found = [s for block in document["text"].split("\n\n") for s in sentences(block)]
    which = rng.choice(SENTENCE_KINDS)
    if which == "count":
        return _turn("count", "count", len(found), words, {"target": target, "which": which}, rng)
    n = {"first": 0, "last": len(found) - 1}.get(which, rng.randrange(len(found)))
    ordinals = phrasings()["ordinals"]
    words |= {"numero": n + 1, "ordinal": ordinals[n] if n < len(ordinals) else f"{n + 1}.ª"}
    return _turn("sentence", which, found[n], words, {"target": target, "which": which, "n": n}, rng)


def _hallucination(
    document: Mapping[str, Any], target: int, words: dict, rng: Random, spare: Sequence[str], wrong: float
) -> Turn | None:
    text = document["text"]
    made = candidate(text, rng, spare) if rng.random() < wrong else None
    shown, verdict = (made.text, Verdict(False, text)) if made else (text, Verdict(True))
    looks = [look for look in CANDIDATE_LOOKS if "```" not in shown and "---" not in shown or look == "{}"]
    facts = {"target": target, "candidate": shown, "kind": made.kind if made else None}
    words |= {"candidato": rng.choice(looks).format(shown)}
    return _turn("hallucination", "hallucination", verdict, words, facts, rng)


def conversation(
    documents: Sequence[Mapping[str, Any]],
    arrangement: str,
    spare: Sequence[str],
    rng: Random,
    values: Mapping[str, Any],
) -> list[Turn]:
    """One to three turns, no question twice; a transcription comes last, or it would give the others away.

    values: turns (weights of 1, 2, ...), tasks (task -> weight), wrong (share). Empty where nothing can be asked.
    """
    turns: list[Turn] = []
    asked = set()
    wanted = how_many(rng, values["turns"])
    counted = any(map(_counted, documents))
    tasks = {task: weight for task, weight in values["tasks"].items() if counted or task != "sentence"}
    if not any(tasks.values()):
        return []
    for _ in range(4 * wanted):
        turn = ask(weighted(rng, tasks), documents, arrangement, spare, rng, values["wrong"])
        if turn is None or len(turns) == wanted:
            continue
        about = tuple(turn.facts.get(name) for name in ("task", "target", "n", "which"))
        if about not in asked:
            asked.add(about)
            turns.append(turn)
    return sorted(turns, key=lambda turn: turn.facts["task"] in ("transcription", "all_documents"))
