"""A model's text -> the JSON that a schema allows, or the reason why not, in words that a model can mend."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match

from nemo_amalia.utils.errors import ConfigError

FENCE = re.compile(r"\A\s*```[a-zA-Z]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
LONGEST_REASON = 300


class SchemaMismatch(ValueError):
    """The answer is not what the schema asks; the text says why, shortly."""


def parse(text: str, schema: Mapping[str, Any]) -> Any:
    """The JSON in `text`: alone, in a code fence, or the only object or list among other words.

    Raises SchemaMismatch when there is none, when it has NaN or Infinity, or when the schema refuses it; ValueError
    when the schema itself is wrong.
    """
    data = _decode(text)
    error = best_match(_validator(json.dumps(schema, sort_keys=True)).iter_errors(data))
    if error is not None:
        place = "".join(f"[{part!r}]" for part in error.absolute_path) or "a raiz"
        raise SchemaMismatch(f"em {place}: {error.message}"[:LONGEST_REASON])
    return data


@lru_cache(maxsize=256)
def _validator(schema: str) -> Draft202012Validator:
    try:
        Draft202012Validator.check_schema(json.loads(schema))
    except SchemaError as error:
        raise ConfigError(f"the JSON schema of a request is wrong ({error.message}): correct the schema") from error
    return Draft202012Validator(json.loads(schema))


def _decode(text: str) -> Any:
    fenced = FENCE.match(text)
    body = (fenced.group(1) if fenced else text).strip()
    decoder = json.JSONDecoder(parse_constant=_refuse)
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:
        whole = error
    start = min((at for at in (body.find("{"), body.find("[")) if at >= 0), default=-1)
    if start > 0:
        try:
            data, end = decoder.raw_decode(body, start)
            if not re.search(r"[\[{]", body[end:]):  # two values: which one is meant is not ours to say
                return data
        except (ValueError, RecursionError):
            pass
    raise SchemaMismatch(f"não é JSON válido: {whole}"[:LONGEST_REASON])


def _refuse(name: str) -> None:
    raise SchemaMismatch(f"{name} não é JSON")
