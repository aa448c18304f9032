"""A record of documents -> a conversation with its images: pure functions of (record, random numbers)."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from data_prep.engine import Drop, Run, Sample
from data_prep.pipelines.pt_ocr.pictures import CannotShow, draw
from data_prep.pipelines.pt_ocr.turns import conversation
from data_prep.pipelines.pt_ocr.verify import fault


def make_sample(
    record: Mapping[str, Any], rng: Random, pictures: Mapping[str, Any], asking: Mapping[str, Any]
) -> Sample:
    """The record with "messages", "images", "language", and "record", by which verify.fault checks it.

    Raises Drop: glyph, overflow, empty, image (pictures.draw), placeholder, nothing_to_ask.
    """
    documents = record["documents"]
    if any("<image>" in document["text"] for document in documents):
        raise Drop("placeholder")
    if not all(document["text"] for document in documents):
        raise Drop("empty")
    try:
        drawn = draw(documents, rng, pictures)
    except CannotShow as error:
        raise Drop(error.reason, str(error)) from error
    turns = conversation(documents, drawn.arrangement, record["spare"], rng, asking)
    if not turns:
        raise Drop("nothing_to_ask")
    messages = []
    for turn in turns:
        messages.append({"role": "user", "content": [{"type": "text", "text": turn.question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    messages[0]["content"][:0] = [{"type": "image"} for _ in drawn.images]
    pages = [
        {"lines": page.lines, "joints": page.joints, "sentences": document["sentences"], "perturbed": done}
        for page, document, done in zip(drawn.pages, documents, drawn.done, strict=True)
    ]
    kept = {name: value for name, value in record.items() if name not in ("documents", "spare")}
    facts = {"pages": pages, "turns": [turn.facts for turn in turns], "arrangement": drawn.arrangement}
    return kept | {"messages": messages, "images": drawn.images, "language": "pt-PT", "record": facts}


def converse(sample: Sample, run: Run, *, pictures: Mapping[str, Any], asking: Mapping[str, Any]) -> Sample:
    """The step: make_sample with the sample's own random numbers."""
    return make_sample(sample, run.rng, pictures, asking)


def check(sample: Sample, run: Run) -> Sample:
    """The step after it: an answer that is not right is dropped as `not_verified`, and the record ends here."""
    if wrong := fault(sample):
        raise Drop("not_verified", wrong)
    return {name: value for name, value in sample.items() if name != "record"}
