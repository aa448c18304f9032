"""`amalia-data variety FILE`: the variety of each line, with the evidence underlined and explained."""

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from data_prep.config import dotted_keys
from data_prep.variety_settings import variety_filter, variety_settings
from nemo_amalia.utils.errors import ConfigError
from nemo_amalia.utils.hydra_words import explained
from nemo_amalia.variety.classifier import Decision, VarietyFilter
from nemo_amalia.variety.evidence import BRAZILIAN, Verdict

BATCH = 256  # lines between two questions to the classifier
MARKS = {True: "^", False: "~"}  # pt-BR, pt-PT


def main(words: list[str]) -> int:
    """Prints a verdict for each line of a text or .jsonl file; returns 0. ValueError on a missing file or key."""
    options = _parser().parse_intermixed_args(words)
    file, overrides = _file_of(options.words)
    if options.field is not None and not file.endswith(".jsonl"):
        raise ConfigError(
            f"--field {options.field}: {file} is read as text, one a line; leave --field out, or give .jsonl"
        )
    field = "text" if options.field is None else options.field
    counts: Counter = Counter()
    for number, text, decision in decisions(file, field, _filter(overrides)):
        counts[decision.verdict.variety if decision.keep else decision.reason] += 1
        if options.jsonl:
            print(json.dumps(record(number, text, decision), ensure_ascii=False))
        elif not options.dropped or not decision.keep:
            print("\n".join(lines(number, text, decision)))
    if not options.jsonl:
        total = sum(counts.values())
        print(f"{total:,} lines: " + ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())))
    return 0


def _parser() -> argparse.ArgumentParser:
    usage = "amalia-data variety FILE [--jsonl] [--field KEY] [--dropped] [key=value ...]"
    parser = argparse.ArgumentParser("amalia-data variety", usage=usage, description=__doc__)
    what = "FILE: text, one a line, or .jsonl; - reads the standard input. key=value: of conf/data_prep/variety.yaml"
    parser.add_argument("words", metavar="FILE key=value", nargs="*", help=f"{what}, as classifier.model=FOLDER")
    parser.add_argument("--jsonl", action="store_true", help="a JSON object a line, for programs")
    parser.add_argument("--field", metavar="KEY", help="key of the text in a .jsonl file; text by default")
    parser.add_argument("--dropped", action="store_true", help="show only the lines that the filter drops")
    return parser


def _file_of(words: list[str]) -> tuple[str, list[str]]:
    """(file, settings), in any order. Raises ConfigError where there is not one file."""
    files = [word for word in words if "=" not in word or Path(word).is_file()]
    if len(files) != 1:
        seen = f"{len(files)} files ({', '.join(files)})" if files else "no file"
        raise ConfigError(
            f"{seen}: write `amalia-data variety FILE [key=value ...]`, one FILE; - is the standard input"
        )
    return files[0], [word for word in words if word not in files]


def _filter(overrides: list[str]) -> VarietyFilter:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    conf = variety_settings()
    OmegaConf.set_struct(conf, True)
    try:
        given = OmegaConf.from_dotlist(overrides)
        merged = OmegaConf.merge(conf, given)
        OmegaConf.to_container(merged, resolve=True)  # every ${...} now, where its error names the key
    except OmegaConfBaseException as error:
        raise ConfigError(explained(error, overrides, dotted_keys(conf), "conf/data_prep/variety.yaml")) from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{shlex.join(overrides)}: a value cannot be read as YAML ({getattr(error, 'problem', error)}); expected "
            "key=value, with the value in quotes where it has brackets or a colon"
        ) from error
    _check_kinds(OmegaConf.to_container(conf), OmegaConf.to_container(given))
    return variety_filter(merged)


def _check_kinds(defaults: dict[str, Any], given: dict[str, Any], prefix: str = "") -> None:
    """Raises ConfigError for a value of another kind than the default's: text for a number, a value for a section."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "settings below it"}
    for key, value in given.items():
        kind = type(defaults[key])
        if kind is dict and isinstance(value, dict):
            _check_kinds(defaults[key], value, f"{prefix}{key}.")
        elif kind in kinds and type(value) is not kind and not (kind is float and type(value) is int):
            raise ConfigError(f"{prefix}{key}={value}: expected {kinds[kind]}, as in conf/data_prep/variety.yaml")


def decisions(file: str, field: str, keeps: VarietyFilter) -> Iterator[tuple[int, str, Decision]]:
    """(line number, text, decision) of each line that is not blank."""
    batch: list[tuple[int, str]] = []
    for item in _texts(file, field):
        batch.append(item)
        if len(batch) == BATCH:
            yield from _decided(batch, keeps)
            batch = []
    yield from _decided(batch, keeps)


def _decided(batch: list[tuple[int, str]], keeps: VarietyFilter) -> Iterator[tuple[int, str, Decision]]:
    found = keeps.decide([text for _, text in batch])
    yield from ((number, text, decision) for (number, text), decision in zip(batch, found, strict=True))


def _texts(file: str, field: str) -> Iterator[tuple[int, str]]:
    if file != "-" and not Path(file).is_file():
        raise ConfigError(f"{file} is no file: give a text file, a .jsonl file, or - for the standard input")
    source = sys.stdin if file == "-" else open(file, encoding="utf-8")
    with source:
        for number, line in enumerate(_decoded(source, file), 1):
            if not line.strip():
                continue
            yield number, _field(file, number, line, field) if file.endswith(".jsonl") else line.rstrip("\n")


def _decoded(source: TextIO, file: str) -> Iterator[str]:
    try:
        yield from source
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 ({error}): convert it, as in iconv -f latin1 -t utf-8") from None


def _field(file: str, number: int, line: str, field: str) -> str:
    try:
        value = json.loads(line)[field]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{file} line {number} is no JSON object with {field!r}: use --field KEY") from None
    if not isinstance(value, str):
        raise ConfigError(f"{file} line {number}: {field!r} is {type(value).__name__}, expected text: use --field KEY")
    return value


def record(number: int, text: str, decision: Decision) -> dict:
    """The decision as JSON: what a program needs to show or count it."""
    opinion = decision.opinion
    return {
        "line": number,
        "text": text,
        "variety": decision.verdict.variety,
        "score": round(decision.verdict.score, 3),
        "keep": decision.keep,
        "reason": decision.reason,
        "evidence": [piece._asdict() for piece in decision.verdict.evidence],
        "classifier": opinion and {"variety": opinion.variety, "confidence": round(opinion.confidence, 4)},
    }


def lines(number: int, text: str, decision: Decision) -> list[str]:
    """The verdict, the text, what is underlined (^ pt-BR, ~ pt-PT) and why."""
    verdict, opinion = decision.verdict, decision.opinion
    head = f"{number:>5}  {verdict.variety:<7}  {verdict.score:+5.1f}  "
    second = f"  [classifier: {opinion.variety} {opinion.confidence:.2f}]" if opinion else ""
    dropped = "" if decision.keep else f"  dropped: {decision.reason}"
    shown = [head + " ".join(text.splitlines()).replace("\t", " ") + second + dropped]
    if verdict.evidence:
        shown.append(" " * len(head) + underline(text, verdict))
        said = dict.fromkeys((e.variety, f"{e.strength}, {e.rule}: {e.explanation}") for e in verdict.evidence)
        shown += [" " * len(head) + f"{MARKS[variety == BRAZILIAN]} {why}" for variety, why in said]
    return shown


def underline(text: str, verdict: Verdict) -> str:
    """A line as long as the text with ^ under evidence of pt-BR and ~ under evidence of pt-PT."""
    marks = [" "] * len(text)
    for piece in verdict.evidence:
        mark = MARKS[piece.variety == BRAZILIAN]
        marks[piece.start : piece.end] = mark * (piece.end - piece.start)
    return "".join(marks).rstrip()
