"""The short way of the pt-PT filter (chunks between spaces, cached) against the long one: token by token, uncached."""

from pathlib import Path

import pytest

from benchmarks.variety_corpora import ours, together
from nemo_amalia.variety import evidence as variety
from nemo_amalia.variety.evidence import STRENGTHS, Evidence, Verdict, evidence
from nemo_amalia.variety.lexicon import same
from nemo_amalia.variety.words import TOKEN, Words

ROOT = Path(__file__).parents[3]
FILES = (
    "data_prep/pipelines/pt_ocr/corpus.txt",
    "tests/unit/data_prep/translation/translation_pairs.tsv",
    "docs/data_prep/variety.md",
    "docs/data.md",
)
STRANGE = [
    "",
    " ",
    "\n\t ",
    "  Ônibus  e \u00a0ecrã\u2028fim",
    "\u0130stanbul: o \u0130 AUTOCARRO",
    "-- a-b -c 3.4,5",
    "...",
    "é?Né!",
]


@pytest.fixture(scope="module")
def words():
    """Lists of its own, so that what the module's cache holds is not what it is compared with."""
    return Words()


def long_way(text: str, words: Words) -> Verdict:
    """Every token in turn: letters, entries with their guards, grammar, all places, then the module's own weighing."""
    low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    places = list(TOKEN.finditer(low))
    tokens = [place.group() for place in places]
    letters = "".join(words._letter(token) for token in tokens)
    found = []
    for index, token in enumerate(tokens):
        for entry in (each.entry for each in words.token(token)[1]):
            start, end = index - entry.anchor, index - entry.anchor + len(entry.tokens)
            if end - start > 1 and (start < 0 or not same(entry.tokens, tokens[start:end])):
                continue
            capital, begins = text[places[index].start()].isupper(), start == 0 or letters[start - 1] == "."
            if entry.guard and not entry.guard.allows(tokens, start, end, begins, capital):
                continue
            rank = STRENGTHS.index(entry.strength)
            name = capital and end - start == 1 and not begins and not (entry.guard and entry.guard.capital)
            if name and not text[places[index].start() : places[index].end()].isupper():
                rank = min(rank + 1, len(STRENGTHS) - 1)
            span = places[start].start(), places[end - 1].end()
            found.append(Evidence(*span, entry.rule, entry.explanation, entry.variety, STRENGTHS[rank]))
    found += grammar(text, letters, places)
    return variety._judge(low, variety._without_nested(found), variety.default_scale())


def grammar(text, letters, places):
    """The first rule that matches at each letter, whatever letters it says that it starts with."""
    rules = variety.rules()
    at = 0
    while at < len(letters):
        match = next((m for p in [rules.by_letter.get(letters[at])] if p and (m := p.match(letters, at))), None)
        if match is None:
            at += 1
            continue
        last, name = match.end() - 1, match.lastgroup
        inside = last > 0 and letters[last - 1] != "."
        mine = inside and text[places[last].start()].isupper()
        title = mine or last + 1 < len(places) and text[places[last + 1].start()].isupper()
        if not (name.endswith("_possessive") and title):
            kind, strength, explanation = rules.said[name]
            yield Evidence(places[match.start()].start(), places[last].end(), name, explanation, kind, strength)
        at = match.end()


def texts(kind: str) -> list[str]:
    labelled = [item for part in ("dev", "heldout", "natural_dev", "natural_heldout") for item in ours(part)]
    if kind == "labelled":
        return [item.text for item in labelled] + [item.text for item in together(labelled, 5)]
    if kind == "other":
        whole = [(ROOT / name).read_text(encoding="utf-8") for name in FILES]
        return [
            *STRANGE,
            *whole,
            *(piece for text in whole for line in text.split("\n") for piece in (line, *line.split("\t"))),
        ]
    changed = [item.text for item in labelled]
    spaced = ["  " + text.replace(" ", "  ").replace(",", " ,\n") + " \n\t" for text in changed]
    return [text.upper() for text in changed] + [text.title() for text in changed] + spaced


@pytest.mark.parametrize(("kind", "least"), [("labelled", 480), ("other", 1500), ("changed", 1300)])
def test_verdict_and_evidence_are_those_of_the_long_way(kind, least, words):
    some = texts(kind)
    assert len(some) >= least
    verdicts = [evidence(text) for text in some]
    assert sum(bool(verdict.evidence) for verdict in verdicts) > len(some) / 10
    differ = [text for text, verdict in zip(some, verdicts, strict=True) if verdict != long_way(text, words)]
    assert not differ
    assert [evidence(text) for text in some] == verdicts  # from a warm cache
