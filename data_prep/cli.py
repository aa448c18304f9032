"""``amalia-data NAME run|status [key=value ...]``: wiring only; nothing heavy is imported before it is needed."""

from __future__ import annotations

import difflib
import importlib
import sys
from pathlib import Path

from nemo_amalia.utils.errors import FAILED, INTERRUPTED, USER_ERROR, ConfigError, ReportedError, UserError
from nemo_amalia.utils.text import one_line

HELP = """Makes the data sets of the paper's section 5.1 (docs/data_prep.md).

  amalia-data NAME run [key=value ...]      from source to shards; the same command again goes on after a kill
  amalia-data NAME status [key=value ...]   how far it is: done, dropped by reason, calls, retries, tokens, cost
  amalia-data NAME --help                   what it makes, and its settings with their defaults

  run executor=slurm executor.partition=...   arrays that depend on each other, instead of this machine
  run limit=100 executor.workers=2            the first 100 records, two processes

  amalia-data variety FILE                    pt-PT or pt-BR, line by line, with the evidence
  amalia-data translation-report RUN_DIR      what a translation run did: samples, guards, models, examples

names: {names}
"""

#: `amalia-data WORD ...` that is no data set -> the module whose main(words) does it.
COMMANDS: dict[str, str] = {
    "variety": "data_prep.variety_command",
    "translation-report": "data_prep.pipelines.translate.report",
}


DOINGS = ("run", "status", "--help")


def main(argv: list[str] | None = None) -> int:
    """Entry of the ``amalia-data`` command. Errors a user can mend are one line on stderr and exit code 2; a step that
    broke is one line and exit code 1.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            from data_prep.config import names

            print(HELP.format(names=", ".join(names())), end="")
            return 0
        if words[0] in COMMANDS:
            return importlib.import_module(COMMANDS[words[0]]).main(words[1:])
        if {"-h", "--help"} & set(words[1:]):
            from data_prep.usage import usage

            print(usage(words[0]), end="")
            return 0
        if len(words) < 2 or words[1] not in ("run", "status"):
            raise ConfigError(_what_is_meant(*words[:2]))
        return (run if words[1] == "run" else status)(words[0], words[2:])
    except UserError as error:
        return _failed(error, USER_ERROR)
    except ReportedError as error:  # of a pipeline's own code: its traceback is in run_dir/errors
        return _failed(error, FAILED)
    except KeyboardInterrupt:
        return _failed("interrupted; run the same command again to continue", INTERRUPTED)


def _what_is_meant(word: str, what: str = "") -> str:
    from data_prep.config import names

    known = [*names(), *COMMANDS]
    if word in DOINGS and what in names():
        return f"the name comes first: write `amalia-data {what} {word}`"
    if word in names() and (near := difflib.get_close_matches(what, DOINGS, n=1, cutoff=0.6)):
        return f"{what} is nothing that can be done: did you mean `amalia-data {word} {near[0]}`?"
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if word not in known and near:
        return f"there is no {word}: did you mean `amalia-data {near[0]}`?"
    return f"what should be done with {word}? write `amalia-data {word} run`, `... status` or `... --help`"


def run(name: str, overrides: list[str]) -> int:
    """`amalia-data NAME run`: composes, runs, prints the counts."""
    from data_prep.config import compose

    conf = compose(name, overrides)
    return run_pipeline(conf)


def run_pipeline(conf) -> int:
    """A configuration from beginning to end, or into the queue of Slurm."""
    from data_prep.engine.commit import pipeline_commit, short
    from data_prep.engine.execute import run_local, submit_slurm
    from data_prep.engine.finish import begin, finished_report
    from data_prep.engine.folder import RunFolder
    from data_prep.engine.progress import report_lines
    from data_prep.engine.steps import load_phases
    from data_prep.models.reachable import check_addresses, silent_servers
    from data_prep.models.routes import unpinned_models

    out = Path(conf.out).absolute()
    folder, commit = RunFolder(conf), pipeline_commit()
    _, phases = load_phases(conf)
    if conf.get("models"):
        check_addresses(conf.models)
    begun = begin(conf, commit)
    if finished_report(out, begun["id"]) is None:
        if begun["commit"] != commit:
            _say(f"going on with other code: begun at {short(begun['commit'])}, now {short(commit)}; samples say which")
        for line in unpinned_models(conf.models) if conf.get("models") else ():
            _say(line)
        cluster = conf.executor.name == "slurm"
        for line in silent_servers(conf.models) if conf.get("models") else ():
            _say(f"seen from this machine, each task looks again from its node: {line}" if cluster else line)
        if cluster:
            submit_slurm(conf, phases, commit, _say)
            print(f"see `amalia-data {conf.name} status`")
            return 0
        try:
            run_local(conf, phases, commit, _say)
        except (UserError, ReportedError):
            folder.forget_unplanned()
            raise
    else:
        _say("this run was finished before, and its source is not read again: another run_dir and out for a new one")
    print("\n".join(report_lines(finished_report(out, begun["id"]))))
    return 0


def status(name: str, overrides: list[str]) -> int:
    """`amalia-data NAME status`: needs run_dir alone, where it is not the default; the rest is in run.json."""
    from data_prep.config import compose_unchecked, fill
    from data_prep.engine.folder import RunFolder
    from data_prep.engine.progress import status_lines
    from data_prep.engine.steps import load_phases

    conf = compose_unchecked(name, overrides)
    begun = RunFolder(conf).run()
    if begun["name"] != name:
        raise ConfigError(
            f"the run in {conf.run_dir} is of {begun['name']}: write `amalia-data {begun['name']} status`, or name "
            "another run_dir"
        )
    fill(conf, overrides, begun["settings"])
    print("\n".join(status_lines(conf, load_phases(conf)[1])))
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _failed(error: object, code: int) -> int:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
