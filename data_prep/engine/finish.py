"""The end of a run: every count checked against the journals, then the samples as shards that Energon has indexed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.engine.folder import PhaseFolder, RunFolder, chunk_ledger, write_lines
from data_prep.engine.journal import SealedJournal
from data_prep.engine.ledger import Ledger, named
from data_prep.engine.outputs import provenance_of, shard_sample
from data_prep.engine.steps import Phase
from nemo_amalia.utils.errors import DataError, UserError
from nemo_amalia.utils.files import read_json, write_json

RUN_FILE = "data_prep.json"  # in the folder of shards: which run made it, and its counts


def check_phase(phase: Phase, folder: PhaseFolder, records_per_chunk: int) -> Ledger:
    """Recount the sums of a phase from its journals.

    Raises DataError if they do not add up: an unfinished chunk, a missing record or sample, a step that lost one, or
    a summary that disagrees.
    """
    plan = folder.read_plan()
    total = Ledger.of([step.name for step in phase.steps])
    for chunk in range(-(-plan["records"] // records_per_chunk)):
        if not folder.summary(chunk).is_file():
            raise DataError(f"chunk {chunk} of phase {phase.name} is not done: run the same command again")
        first = chunk * records_per_chunk
        expected = range(first, min(first + records_per_chunk, plan["records"]))
        ledger = Ledger.of([step.name for step in phase.steps])
        with contextlib.closing(SealedJournal(folder.journal(chunk))) as journal:
            for number, stored, items in journal.records(blobs=False):
                one = Ledger.from_json(stored["ledger"])
                if number not in expected or one.samples != len(items):
                    raise DataError(
                        f"{folder.journal(chunk)}: record {number} has {len(items)} samples and counts {one.samples}, "
                        f"of records {expected.start} to {expected.stop - 1}: the file was changed; begin a new run"
                    )
                ledger.add(one)
        ledger.check(f"{phase.name}, chunk {chunk}", len(expected))
        if ledger.records != (said := chunk_ledger(folder, chunk)).records or ledger.samples != said.samples:
            raise DataError(
                f"chunk {chunk} of phase {phase.name}: {said.records} records and {said.samples} samples were done, "
                f"{ledger.records} and {ledger.samples} are there: files of two runs are mixed; begin a new run"
            )
        total.add(ledger)
    total.check(phase.name, plan["records"])
    return total


def finish(conf: Any, phases: list[Phase]) -> dict[str, Any]:
    """Checks all counts and writes the shards to conf.out; gives the report. The shards are there whole or not at all,
    and a run that was finished gives its report again.

    Raises DataError where counts do not add up, where no sample came out, or where conf.out holds something else.
    """
    folder = RunFolder(conf)
    run = folder.run()
    out = Path(conf.out).absolute()
    if finished := finished_report(out, run["id"]):
        write_json(folder.report, finished)  # killed between the two
        return finished
    report: dict[str, Any] = {"id": run["id"], "name": conf.name, "seed": conf.seed, "out": str(out), "phases": []}
    ledgers = {phase.name: check_phase(phase, folder.phase(phase), conf.records_per_chunk) for phase in phases}
    given = None
    for phase in phases:
        plan = folder.phase(phase).read_plan()
        barrier = plan["ledger"] and Ledger.from_json(plan["ledger"])
        if barrier:
            barrier.check(f"{phase.name}, barrier", given)
        given = ledgers[phase.name].samples
        entry = {"name": phase.name, "barrier": plan["ledger"], "ledger": ledgers[phase.name].to_json()}
        report["phases"].append(entry)
    list_dropped(folder, phases)
    if not given:
        raise nothing_came_out(folder, phases)
    report["shards"] = _write(conf, run, _samples(conf, run, folder.phase(phases[-1])), given, out, report)
    write_json(folder.report, report)
    return report


def list_dropped(folder: RunFolder, phases: list[Phase]) -> None:
    """RUN_DIR/dropped.jsonl: a line for each sample that these phases dropped."""
    write_lines(folder.path / "dropped.jsonl", _drops(folder, phases))


def nothing_came_out(folder: RunFolder, phases: list[Phase]) -> DataError:
    """The error of phases that dropped everything, with the reasons."""
    reasons = named(Counter(drop["reason"] for drop in _drops(folder, phases)))
    records = folder.phase(phases[0]).read_plan()["records"]
    return DataError(f"no sample came out of {records:,} records ({reasons}): see {folder.path / 'dropped.jsonl'}")


def begin(conf: Any, commit: str) -> dict[str, Any]:
    """Return run.json of a new or resumed run.

    Raises DataError if run_dir or out belongs to something else; one line names both.
    """
    folder, out = RunFolder(conf), Path(conf.out).absolute()
    try:
        begun = folder.begin(conf, commit)
    except UserError as error:
        if taken := _taken(out):
            raise DataError(f"{error}; and {taken}") from None
        raise
    try:
        finished_report(out, begun["id"])
    except UserError:
        folder.forget_unplanned()
        raise
    return begun


def finished_report(out: Path, run_id: str) -> dict[str, Any] | None:
    """The report beside the shards, where they are this run's. Raises DataError where `out` holds something else."""
    if (out / RUN_FILE).is_file():
        report = read_json(out / RUN_FILE)
        if report["id"] == run_id:
            return report
    if taken := _taken(out):
        raise DataError(taken)
    return None


def _taken(out: Path) -> str:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return f"{out} holds data of something else or of another run: choose another out, or remove it"
    return ""


def _write(
    conf: Any, run: dict[str, Any], samples: Iterator[dict[str, Any]], expected: int, out: Path, report: dict[str, Any]
) -> dict[str, int]:
    from nemo_amalia.data.shards.write import write_shards

    work = out.parent / f".{out.name}.run-{run['id']}"
    for stale in (work, *out.parent.glob(f".{work.name}.partial-*")):  # of a kill while it wrote
        shutil.rmtree(stale, ignore_errors=True)
    written = write_shards(samples, work, conf.samples_per_shard)
    if written.num_samples != expected:
        shutil.rmtree(work)
        raise DataError(f"{expected:,} samples were counted and {written.num_samples:,} written: begin a new run")
    shards = {"samples": written.num_samples, "images": written.num_images, "shards": written.num_shards}
    shards["bytes"] = written.num_bytes
    write_json(work / RUN_FILE, report | {"shards": shards})
    if out.exists():
        out.rmdir()
    os.replace(work, out)
    return shards


def _samples(conf: Any, run: dict[str, Any], folder: PhaseFolder) -> Iterator[dict[str, Any]]:
    for chunk in folder.sealed():
        with contextlib.closing(SealedJournal(folder.journal(chunk))) as journal:
            for _, stored, items in journal.records():
                for item in items:
                    sample = item["sample"]
                    provenance = provenance_of(sample, item["models"], item["prompts"], run, stored["commit"])
                    yield shard_sample(sample, provenance, conf.name)


def _drops(folder: RunFolder, phases: list[Phase]) -> Iterator[dict[str, Any]]:
    for phase in phases:
        place = folder.phase(phase)
        if place.dropped.is_file():
            with open(place.dropped) as lines:
                yield from map(json.loads, lines)
        for chunk in place.sealed():
            with contextlib.closing(SealedJournal(place.journal(chunk))) as journal:
                for _, stored, _ in journal.records(blobs=False):
                    yield from stored["drops"]
