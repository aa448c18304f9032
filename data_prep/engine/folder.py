"""The folder of a run: what lies where, and whether it may go on with these settings.

run_dir/run.json                settings, id and commit of the run that began it
run_dir/STAGE/plan.json         how many records; of a stage after a barrier records.jsonl, too: which samples
run_dir/STAGE/000012.sqlite     journal of a chunk of records; 000012.json beside it once the chunk is done
run_dir/STAGE/live/00003.json   what task 3 does now
run_dir/errors/                 tracebacks; run_dir/datatrove/: logs and completions of the tasks
run_dir/report.json             the counts; run_dir/dropped.jsonl: which samples were dropped, and why
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.engine.ledger import Ledger
from data_prep.engine.steps import Stage
from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.files import read_json, write_json

# May differ when a run goes on: they change no sample. Of the others a change would mix two data sets in one.
FREE = {"executor", "run_dir", "out", "answers", "concurrency", "max_model_errors", "progress_seconds"}
FREE_OF_MODELS = re.compile(r"models\.(servers\.|roles\.\w+\.(server|reasks|price\.))")  # where, not which


@dataclass(frozen=True)
class StageFolder:
    """A stage's files."""

    path: Path

    def journal(self, chunk: int) -> Path:
        """Of chunk number `chunk`."""
        return self.path / f"{chunk:06d}.sqlite"

    def summary(self, chunk: int) -> Path:
        """There once the chunk is done."""
        return self.path / f"{chunk:06d}.json"

    def live(self, task: int) -> Path:
        """What a task does now."""
        return self.path / "live" / f"{task:05d}.json"

    @property
    def plan(self) -> Path:
        """The stage's number of records."""
        return self.path / "plan.json"

    @property
    def references(self) -> Path:
        """Of a stage after a barrier: a line a record, [[chunk, number, place], ...] of the samples it is made of."""
        return self.path / "records.jsonl"

    @property
    def dropped(self) -> Path:
        """Of a stage after a barrier: what the barrier dropped, a line each."""
        return self.path / "dropped.jsonl"

    def read_plan(self) -> dict[str, Any]:
        """{"records", "digests", "ledger"}. Raises DataError where the stage was not planned."""
        if not self.plan.is_file():
            raise DataError(f"{self.plan} is missing: the stage was not planned; run the command again")
        return read_json(self.plan)

    def sealed(self) -> dict[int, Path]:
        """Chunk -> summary, of the chunks that are done."""
        return dict(sorted((int(path.stem), path) for path in self.path.glob("[0-9]*.json")))


class RunFolder:
    """A run's files. `conf` is the whole configuration of the pipeline."""

    def __init__(self, conf: Any) -> None:
        self.path, self._name = Path(conf.run_dir).absolute(), conf.name

    def stage(self, stage: Stage) -> StageFolder:
        """Where a stage's files are."""
        return StageFolder(self.path / stage.name)

    @property
    def report(self) -> Path:
        """There once the run has ended well."""
        return self.path / "report.json"

    def run(self) -> dict[str, Any]:
        """run.json. Raises DataError where no run has begun here."""
        if not (self.path / "run.json").is_file():
            raise DataError(
                f"no run has begun in {self.path}: begin one with `amalia-data {self._name} run`, or say where it is "
                "with run_dir=..."
            )
        return read_json(self.path / "run.json")

    def begin(self, conf: Any, commit: str) -> dict[str, Any]:
        """Writes run.json, or compares it where it is there. Raises DataError on other settings than the run's."""
        from omegaconf import OmegaConf

        settings = _settled(OmegaConf.to_container(conf, resolve=True))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot write to {self.path} ({error.strerror}): choose another run_dir") from error
        if not (self.path / "run.json").is_file():
            begun = {"id": secrets.token_hex(8), "name": conf.name, "seed": conf.seed, "commit": commit}
            write_json(self.path / "run.json", begun | {"settings": settings})
        run = self.run()
        before = run["settings"]
        named = {name: value for name, value in settings.items() if name.startswith("models.")}
        if named and not any(name.startswith("models.") for name in before):  # nothing was asked until now
            before |= named
            write_json(self.path / "run.json", run)
        for name in sorted(before.keys() | settings.keys()):
            if before.get(name) != settings.get(name):
                raise DataError(
                    f"{self.path} is of a run with {name}={before.get(name)}, and now it is {settings.get(name)}: "
                    f"choose another run_dir, or the same settings; or remove {self.path} to make it anew"
                )
        return run

    def forget_unplanned(self) -> None:
        """A run that broke before its source was read through, as one of a wrong value does, holds nothing: without
        run.json the mended command is not held to the wrong one's settings.
        """
        if not any(self.path.glob("*/plan.json")):
            (self.path / "run.json").unlink(missing_ok=True)


def chunk_ledger(folder: StageFolder, chunk: int) -> Ledger:
    """What a finished chunk came to."""
    return Ledger.from_json(read_json(folder.summary(chunk))["ledger"])


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines."""
    with open(path, "w") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _settled(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of what must not change within a run."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if not prefix and name in FREE or FREE_OF_MODELS.match(prefix + name):
            continue
        if isinstance(value, dict):
            flat |= _settled(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
