"""Preference pairs, parquet or .jsonl, in TRL's vision form and its older relatives.

- `prompt`, `chosen`, `rejected`: lists of turns, or texts; `images` or `image`
  (https://huggingface.co/docs/trl/dataset_formats#preference, #vision-datasets)
- `chosen` and `rejected` alone, whole conversations: what they begin with in common is the prompt
- `question`, `chosen`, `rejected` as texts, `image` (RLAIF-V)
- `conversations` with `chosen` and `rejected` as one turn each (LLaMA-Factory)

A sample has the prompt as "messages", and "chosen" and "rejected" as lists of messages: TRL's names and form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemo_amalia.data.importing.formats.conversations import (
    match_images,
    messages_of,
    plain_text,
    require_answers,
    say,
)
from nemo_amalia.data.importing.formats.pictures import pictures_of
from nemo_amalia.data.importing.formats.records import (
    BadRecordError,
    Format,
    ReadOptions,
    first_present,
    require_object,
)
from nemo_amalia.data.importing.formats.rows import TEXT, find_files, read_rows
from nemo_amalia.data.messages import Messages, shared_prompt, without_prompt


def convert(row: Any, folder: Path, options: ReadOptions) -> dict[str, Any]:
    """One record -> sample. Raises BadRecordError."""
    row = require_object(row)
    prompt, answers = first_present(row, ("prompt", "question", "messages", "conversations")), {}
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise BadRecordError("record", f"has the fields {list(row)}: expected prompt, chosen and rejected")
        answers[name] = _messages(row[name], "assistant")
    chosen, rejected = answers["chosen"], answers["rejected"]
    if prompt is None:
        shared = shared_prompt(chosen, rejected)
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    else:
        prompt = _messages(prompt, "user")
        chosen, rejected = without_prompt(prompt, chosen), without_prompt(prompt, rejected)
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if answer and answer[0]["role"] != "assistant":
            turn = f"the {answer[0]['role']}'s turn {plain_text(answer[0])[:60]!r}"
            raise BadRecordError("other_prompt", f"has in {name} {turn}, which is not the prompt's")
    if not prompt or prompt[-1]["role"] != "user":
        raise BadRecordError("messages", "has no prompt that ends with the user's turn")
    if chosen == rejected:
        raise BadRecordError("same_answers", "has equal answers, chosen and rejected: nothing to prefer")
    for answer in (chosen, rejected):
        require_answers(answer)
        match_images(answer, 0)  # pictures belong to the prompt
    images = pictures_of(first_present(row, ("images", "image")), folder, options.max_image_pixels)
    match_images(prompt, len(images), pictures_first=True)
    return {"messages": prompt, "chosen": chosen, "rejected": rejected, "images": images}


def _messages(value: Any, role: str) -> Messages:
    if isinstance(value, str):
        return [say(role, value)]
    return messages_of([value] if isinstance(value, dict) else value)


FORMAT = Format(
    "preference pairs: .parquet or .jsonl with prompt, chosen, rejected, images",
    lambda source: find_files(source, TEXT | {".parquet"}),
    read_rows,
    convert,
)
