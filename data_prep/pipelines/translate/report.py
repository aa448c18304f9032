"""What a translation run did: a line of JSON a sample while it runs, and the page that sums them up.

    amalia-data translation-report RUN_DIR

How many came out or were dropped is the run's own count, as `status` reads it; the lines tell the rest. They are found
again by the sample's key, so that a run that was killed and went on counts no sample twice.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_prep.engine.ledger import Ledger
from data_prep.translation.work import Work
from nemo_amalia.utils.errors import DataError

FOLDER = "translated"  # of a run's folder
EXAMPLES = 20


def record(key: str, work: Work, reason: str = "", note: str = "") -> dict[str, Any]:
    """What became of one sample. reason: why it was dropped, empty when it came out.

    settled: segments by what settled them ("translated", or a rule of segments.py). refused: translations by
    "role: guard", mended or not. characters: [English, pt-PT] of translated segments. shown: one of them.
    """
    settled: Counter[str] = Counter()
    characters, shown = [0, 0], None
    for index, segment in enumerate(work.segments if not reason else ()):
        rule = "option" if segment.follows is not None else segment.rule or "translated"
        settled[rule] += 1
        if rule == "translated":
            characters = [characters[0] + len(segment.text), characters[1] + len(work.done[index])]
            shown = shown or [segment.text, work.done[index]]
    if reason and work.open:
        shown = [work.segments[work.open[0]].text, work.tried.get(work.open[0], "")]
    return {
        "key": key,
        "at": time.time_ns(),
        "reason": reason,
        "note": note,
        "settled": dict(settled),
        "refused": dict(Counter(f"{role}: {guard}" for role, guard in work.history)),
        "models": dict(Counter(work.models[index] for index in work.done)) if not reason else {},
        "characters": characters,
        "shown": [text[:300] for text in shown or ["", ""]],
    }


class Log:
    """Appends records to a file of this process in RUN_DIR/translated; a line is written whole or not at all."""

    def __init__(self, run_dir: str | Path) -> None:
        self._folder = Path(run_dir) / FOLDER

    def write(self, line: Mapping[str, Any]) -> None:
        """One record. Raises OSError when the disk does not take it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        file = os.open(
            self._folder / f"{socket.gethostname()}-{os.getpid()}.jsonl", os.O_APPEND | os.O_CREAT | os.O_WRONLY
        )
        try:
            if os.write(file, data) != len(data):
                raise OSError(f"the disk of {self._folder} is full")
        finally:
            os.close(file)


def read(run_dir: str | Path) -> list[dict[str, Any]]:
    """The last record of every sample, by key. A line that a kill cut short is of a sample that comes again."""
    latest: dict[str, dict[str, Any]] = {}
    for path in sorted((Path(run_dir) / FOLDER).glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                one = json.loads(line)
            except ValueError:
                continue
            if one["key"] not in latest or one["at"] >= latest[one["key"]]["at"]:
                latest[one["key"]] = one
    return [latest[key] for key in sorted(latest)]


def counted(run_dir: str | Path) -> tuple[Ledger, str]:
    """(the run's counts so far, a sentence on what is left: empty once it has finished), as `status` reads them.

    Raises DataError where there is no translation run.
    """
    from data_prep.config import compose_unchecked, fill
    from data_prep.engine.folder import RunFolder
    from data_prep.engine.run_state import Reader
    from data_prep.engine.steps import load_phases

    if not (Path(run_dir) / "run.json").is_file():
        raise DataError(
            f"{run_dir} has no run.json: give the run_dir of `amalia-data translate run`, "
            "runs/data_prep/translate by default, and not its shards"
        )
    conf = compose_unchecked("translate", [])
    conf.run_dir = str(run_dir)
    folder = RunFolder(conf)
    begun = folder.run()
    if begun["name"] != conf.name:
        raise DataError(f"the run in {run_dir} is of {begun['name']}: this report is of `amalia-data translate run`")
    fill(conf, [f"run_dir={run_dir}"], begun["settings"])
    (state,) = Reader(conf, load_phases(conf)[1]).states()
    if folder.report.is_file():
        return state.ledger, ""
    planned = "its samples are not counted yet" if state.records is None else f"of {state.records:,} samples"
    return state.ledger, f"The run has not finished: {state.ledger.records:,} are done, {planned}."


def page(records: Iterable[Mapping[str, Any]], counts: Ledger, left: str = "") -> str:
    """The report, in Markdown. counts, left: of `counted`."""
    ends = list(records)
    out = [one for one in ends if not one["reason"]]
    english, portuguese = (sum(one["characters"][i] for one in out) for i in (0, 1))
    mended = sum(bool(one["refused"]) for one in out)
    dropped = counts.dropped()
    lines = [
        f"{counts.records:,} samples in, {counts.samples:,} out ({mended:,} of them after a refusal), "
        f"{dropped.total():,} dropped; {portuguese / max(1, english):.2f} characters of pt-PT for one of English.",
        *([left] if left else ()),
    ]
    tables = {"Dropped, by reason": dropped}
    for title, name in (
        ("Segments that came out, by what settled them", "settled"),
        ("Refused, by role and guard", "refused"),
        ("Translated segments, by model", "models"),
    ):
        tables[title] = sum((Counter(one[name]) for one in ends), Counter())
    for title, counts in tables.items():
        rows = [f"| {name} | {count:,} |" for name, count in sorted(counts.items(), key=lambda i: (-i[1], i[0]))]
        lines += ["", f"### {title}", "", "| | |", "|---|---:|", *(rows or ["| none | 0 |"])]
    lines += ["", "### Examples", "", "| English | pt-PT |", "|---|---|"]
    lines += [f"| {_cell(one['shown'][0])} | {_cell(one['shown'][1])} |" for one in out[:EXAMPLES]]
    lines += ["", "### Dropped", "", "| English | last try | why |", "|---|---|---|"]
    lost = [one for one in ends if one["reason"] in dropped][:EXAMPLES]  # where a model gave up it may be asked again
    lines += [f"| {_cell(one['shown'][0])} | {_cell(one['shown'][1])} | {_cell(one['note'])} |" for one in lost]
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    """Prints the page of a run; returns 0. Raises UserError if there is no run."""
    if {"-h", "--help"} & set(words):
        print(__doc__.strip())
        return 0
    if len(words) != 1:
        raise DataError("which run? write `amalia-data translation-report RUN_DIR`")
    print(page(read(words[0]), *counted(words[0])), end="")
    return 0


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())[:200]
