"""The records of a phase: of its source, or of the samples that a barrier sent on. And how they are planned."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

from data_prep.engine.flow import Item, broken
from data_prep.engine.folder import PhaseFolder, write_lines
from data_prep.engine.journal import SealedJournal
from data_prep.engine.ledger import Ledger
from data_prep.engine.steps import Phase, Run, Sample, name_of
from nemo_amalia.utils.errors import DataError, UserError
from nemo_amalia.utils.files import write_json

OPEN_JOURNALS = 64  # of the phase before: a barrier may send samples on in any order
Reference = Sequence[int]  # (chunk, number, place): which sample of the phase before


class Digest:
    """Of the records of a chunk: a source that gives others when a run goes on would mix two data sets."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=8)

    def add(self, sample: Sample) -> None:
        """Bytes count by their content."""
        text = json.dumps(
            sample, sort_keys=True, default=lambda value: hashlib.blake2b(value, digest_size=8).hexdigest()
        )
        self._hash.update(text.encode())

    def __str__(self) -> str:
        return self._hash.hexdigest()


def _fingerprint(value: bytes) -> str:
    return hashlib.blake2b(value, digest_size=8).hexdigest()


def source_records(phase: Phase, limit: int, name: str) -> Iterator[Item]:
    """The source's records, with a key each. Raises DataError on one without source or licence."""
    for number, record in enumerate(itertools.islice(_read(phase), limit or None)):
        for field in ("source", "licence"):
            if not isinstance(record.get(field), str) or not record[field]:
                raise DataError(
                    f"record {number} of {name_of(phase.source)} has no {field}: each record says where it is from and "
                    "under which licence, as in source='folder/text.txt' licence='CC0-1.0'"
                )
        yield Item({"key": f"{name}-{number:09d}"} | record)


def _read(phase: Phase) -> Iterator[Sample]:
    number = 0
    try:
        for record in phase.source():
            yield record
            number += 1
    except UserError:  # says what to do already
        raise
    except Exception as error:
        raise broken(f"source {name_of(phase.source)} after {number} records", error) from error


def barrier_records(folder: PhaseFolder, before: PhaseFolder) -> Iterator[Callable[[], Item]]:
    """What the barrier before this phase sent on, to be read when called."""

    @lru_cache(OPEN_JOURNALS)
    def journal(chunk: int) -> SealedJournal:
        return SealedJournal(before.journal(chunk))

    def read(line: str) -> Item:
        references = json.loads(line)
        items = [Item.from_json(journal(chunk).items(number)[place]) for chunk, number, place in references["of"]]
        return _together(items) if references["together"] else items[0]

    with open(folder.references) as lines:
        for line in lines:
            yield partial(read, line)


def _together(items: list[Item]) -> Item:
    samples = [item.sample for item in items]
    joined = {name: "; ".join(sorted({sample[name] for sample in samples})) for name in ("source", "licence")}
    models, prompts = (set().union(*sets) for sets in zip(*((i.models, i.prompts) for i in items), strict=True))
    return Item({"key": samples[0]["key"], **joined, "samples": samples}, models, prompts)


def plan_source(phase: Phase, folder: PhaseFolder, conf: Any) -> None:
    """Reads the source once: how many records, and a digest of each chunk. Raises DataError on an empty one."""
    digests: list[str] = []
    number = 0
    records = source_records(phase, conf.limit, conf.name)
    while chunk := list(itertools.islice(records, conf.records_per_chunk)):
        digest = Digest()
        for item in chunk:
            digest.add(item.sample)
        digests.append(str(digest))
        number += len(chunk)
    if not number:
        raise DataError(f"{name_of(phase.source)} gave no records: look at the settings of the source")
    write_json(folder.plan, {"records": number, "digests": digests, "ledger": None})


def plan_barrier(phase: Phase, folder: PhaseFolder, before: PhaseFolder, seed: int) -> None:
    """Lets the barrier choose among the samples of the phase before. Raises DataError where it names none of them, or
    a position that is not there.
    """
    references: list[Reference] = []
    samples: list[Sample] = []
    keys: list[str] = []
    for chunk in before.sealed():
        with contextlib.closing(SealedJournal(before.journal(chunk))) as journal:
            for number, _, items in journal.records(blobs=False):
                for place, item in enumerate(items):
                    references.append((chunk, number, place))
                    samples.append(_seen(item["sample"], phase.barrier.fields))
                    keys.append(item["sample"]["key"])
    name = name_of(phase.barrier.choose)
    chosen = [one if isinstance(one, int) else list(one) for one in _choice(phase, samples, seed)]
    groups = [[one] if isinstance(one, int) else one for one in chosen]
    used = list(itertools.chain.from_iterable(groups))
    if not used or not all(groups) or min(used) < 0 or max(used) >= len(samples):
        seen = f"{min(used)} to {max(used)}" if used and all(groups) else "nothing, or an empty group"
        raise DataError(f"barrier {name} chose {seen} of {len(samples):,} samples: expected positions from 0 on")
    ledger = Ledger.of([name])
    counts = ledger.steps[0]
    counts.into, counts.out = len(samples), len(groups)
    counts.added, counts.merged = len(used) - len(set(used)), len(used) - len(groups)
    if len(set(used)) < len(samples):
        counts.dropped[phase.barrier.reason] = len(samples) - len(set(used))
    ledger.records, ledger.samples = len(samples), len(groups)
    lines = (
        {"of": [references[i] for i in group], "together": not isinstance(one, int)}
        for one, group in zip(chosen, groups, strict=True)
    )
    unused = sorted(set(range(len(samples))) - set(used))
    drops = ({"key": keys[i], "step": name, "reason": phase.barrier.reason, "note": ""} for i in unused)
    folder.path.mkdir(parents=True, exist_ok=True)
    write_lines(folder.references, lines)
    write_lines(folder.dropped, drops)
    write_json(folder.plan, {"records": len(groups), "digests": None, "ledger": ledger.to_json()})


def _seen(sample: Sample, fields: tuple[str, ...]) -> Sample:
    return {name: sample.get(name) for name in fields} if fields else sample


def _choice(phase: Phase, samples: Sequence[Sample], seed: int) -> list[int | Sequence[int]]:
    name = name_of(phase.barrier.choose)
    try:
        return list(phase.barrier.choose(samples, Run(seed, name, "all")))
    except Exception as error:
        raise broken(f"barrier {name}", error) from error
