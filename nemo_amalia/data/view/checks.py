"""What looks wrong in samples as they will be trained: read off tokens and loss mask, not off the code that made them.

Every check gives one Finding, in words, also where nothing was found. "wrong" teaches the model something wrong or
costs samples; "look" may be meant.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from nemo_amalia.data.encoding.chat import ChatFormat
from nemo_amalia.data.encoding.hf_folder import Assets
from nemo_amalia.data.view.read import Seen, disagreements
from nemo_amalia.data.view.template_checks import Finding, template_findings

# Markers of other chat formats: in plain text they are a sign of data that was rendered before it was written.
MARKERS = re.compile(r"<\|[^|>\s]{1,30}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<image[^<>]{0,12}>|<img>")


class _Tally:
    """Collects keys and the first example of each trouble."""

    def __init__(self) -> None:
        self.keys: dict[str, list[str]] = defaultdict(list)
        self.examples: dict[str, str] = {}

    def add(self, name: str, key: str, example: str = "") -> None:
        if key not in self.keys[name]:
            self.keys[name].append(key)
        self.examples.setdefault(name, example)


#: name -> (level, what is wrong; {n} samples, {example} the first one's text; what it says where nothing was found)
CHECKS = {
    "loss_elsewhere": ("wrong", "Loss on a user's turn: {n} learn text that no assistant wrote, such as {example}.",
                       "The loss is on answers alone."),
    "header_in_loss": ("wrong", "The assistant's header is learned in {n}: {example} is in the loss. The template does "
                       "not write it as its generation prompt, so at inference the model must write it itself.",
                       "No header of a turn is in the loss."),
    "answer_not_learned": ("wrong", "{n} have an answer that is not in the loss as it was written, such as {example}.",
                           "Every answer is in the loss, word for word."),
    "end_not_learned": ("wrong", "{n} do not learn to stop: {example} is not the last loss token of an answer.",
                        "Every answer ends with {end} in the loss."),
    "after_answer": ("look", "{n} learn more than answer and end of turn: {example} stands between the two.",
                     "Nothing stands between an answer and its end."),
    "no_loss": ("wrong", "{n} have no token to learn.", "Every sample has tokens to learn."),
    "empty_answer": ("wrong", "{n} hold an empty answer.", "No answer is empty."),
    "bos_twice": ("wrong", "{n} begin with the BOS token {example} twice.", "BOS stands at most once."),
    "placeholders": ("wrong", "{n} have other image tokens than their images need: {example}.",
                     "Image tokens are what the images need."),
    "text_lost": ("wrong", "{n} lack text of a message, such as {example}: the chat template leaves it out.",
                  "The text of every message is in the tokens."),
    "text_changed": ("look", "The tokenizer changes the text of {n}, such as {example}.",
                     "The tokenizer gives every text back unchanged."),
    "unknown": ("look", "{n} hold unknown tokens ({example}): the vocabulary lacks their letters.",
                "There are no unknown tokens."),
    "marker": ("look", "{n} have the marker of a chat format in their text, such as {example}.",
               "No text holds markers of a chat format."),
    "turns": ("look", "The turns of {n} do not alternate, or the last is no answer, such as {example}.",
              "Questions and answers alternate."),
    "language": ("look", "{n} do not say their language.", "Every sample names its language."),
}  # fmt: skip


def findings(seen: list[Seen], assets: Assets) -> list[Finding]:
    """All checks, worst first."""
    found = [_refused(seen), _folder(assets), *template_findings(assets.chat)]
    tally, usable = _Tally(), [one for one in seen if one.tokens is not None]
    for one in usable:
        _check_sample(one, assets, tally)
    for name, (level, text, fine) in CHECKS.items():
        keys = tuple(tally.keys.get(name, ()))
        if keys:
            number = f"{len(keys):,} of {len(usable):,} samples"
            text = text.format(n=number, example=tally.examples[name])
            found.append(Finding(name, level, text, keys))
        elif usable:
            found.append(Finding(name, "fine", fine.format(end=assets.chat.end_of_turn)))
    return sorted(found, key=lambda one: ("wrong", "look", "fine").index(one.level))


def _refused(seen: list[Seen]) -> Finding:
    bad = [one for one in seen if one.tokens is None]
    if not bad:
        return Finding("refused", "fine", "Training takes every sample.")
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in Counter(one.reason for one in bad).most_common())
    first = bad[0].message
    share = "every one of the" if len(bad) == len(seen) else f"{len(bad):,} of"
    text = f"Training refuses {share} {len(seen):,} samples ({reasons}). The first: {first}"
    return Finding("refused", "wrong", text, tuple(one.key for one in bad))


def _folder(assets: Assets) -> Finding:
    found = disagreements(assets)
    if found:
        return Finding("folder", "wrong", f"The files of --assets disagree: {'; '.join(found)}.")
    return Finding("folder", "fine", "Model, processor, tokenizer and generation config agree.")


def parts(message: dict[str, Any], image_token: str) -> list[list[str]]:
    """A message's texts that are not blank, in groups: an image starts a new one."""
    content = message["content"]
    if isinstance(content, str):
        return [[text.strip()] for text in content.split(image_token) if text.strip()]
    groups: list[list[str]] = [[]]
    for part in content:
        if part["type"] == "image":
            groups.append([])
        elif part["text"].strip():
            groups[-1].append(part["text"].strip())
    return [group for group in groups if group]


def loss_runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Half-open ranges of tokens in the loss that follow each other."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def decode(chat: ChatFormat, ids: np.ndarray) -> str:
    """The text of ids, special tokens too, without image placeholders."""
    kept = ids[ids != chat.image_token_id].tolist()
    return chat.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _check_sample(one: Seen, assets: Assets, tally: _Tally) -> None:
    chat, sample, messages = assets.chat, one.tokens, one.conversation.messages
    _check_loss(one, chat, tally)
    _check_text(one, chat, tally)
    needed = sum(assets.geometry.num_tokens(w, h, sample.tiling) for w, h in sample.image_sizes)
    there = int((sample.input_ids == chat.image_token_id).sum())
    if needed != there or len(sample.images) != len(sample.image_sizes):
        tally.add("placeholders", one.key, f"{there:,} for {needed:,}")
    bos = chat.tokenizer.bos_token_id
    if bos is not None and len(sample) > 1 and (sample.input_ids[:2] == bos).all():
        tally.add("bos_twice", one.key, repr(chat.tokenizer.bos_token))
    unknown = chat.tokenizer.unk_token_id
    if unknown is not None and (sample.input_ids == unknown).any():
        tally.add("unknown", one.key, repr(chat.tokenizer.unk_token))
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        tally.add("turns", one.key, ", ".join(roles))
    if not one.conversation.language:
        tally.add("language", one.key)


def _check_loss(one: Seen, chat: ChatFormat, tally: _Tally) -> None:
    """The stretches of loss against the answers: same words, nothing more but the end of the turn."""
    sample, messages = one.tokens, one.conversation.messages
    runs = [sample.input_ids[start:stop] for start, stop in loss_runs(sample.loss_mask)]
    if not runs:
        tally.add("no_loss", one.key)
    end = chat.tokenizer.convert_tokens_to_ids(chat.end_of_turn)
    questions = [t for m in messages if m["role"] != "assistant" for g in parts(m, chat.image_token) for t in g]
    expected: list[tuple[list[str], bool]] = []  # texts, and whether the turn ends with them
    for message in messages[one.conversation.prompt_turns :]:
        if message["role"] == "assistant":
            groups = parts(message, chat.image_token)
            if not groups:
                tally.add("empty_answer", one.key)
            expected += [(group, group is groups[-1]) for group in groups]
    for run, (texts, last) in zip(runs, expected, strict=False):
        text = decode(chat, run)
        start, stop = _spread(text, texts)
        if start is None:
            tally.add("answer_not_learned", one.key, _short(" ".join(texts)))
            continue
        before, after = text[:start], text[stop:].strip()
        if before.strip():
            asked = any(question in before for question in questions)
            tally.add("loss_elsewhere" if asked else "header_in_loss", one.key, _short(before))
        if last and run[-1] != end:
            tally.add("end_not_learned", one.key, chat.end_of_turn)
        elif after.removesuffix(chat.end_of_turn).strip():
            tally.add("after_answer", one.key, _short(after.removesuffix(chat.end_of_turn)))
    for run in runs[len(expected) :]:
        tally.add("loss_elsewhere", one.key, _short(decode(chat, run)))
    for texts, _ in expected[len(runs) :]:
        tally.add("answer_not_learned", one.key, _short(" ".join(texts)))


def _spread(text: str, texts: list[str]) -> tuple[int | None, int]:
    """Where the first of `texts` starts and the last ends, in order; None when one is missing."""
    start, stop = None, 0
    for part in texts:
        place = text.find(part, stop)
        if place < 0:
            return None, 0
        start, stop = place if start is None else start, place + len(part)
    return start, stop


def _check_text(one: Seen, chat: ChatFormat, tally: _Tally) -> None:
    """Every message's text, in order, in what the tokens say."""
    whole, place = decode(chat, one.tokens.input_ids), 0
    for text in _texts(one, chat):
        marker = MARKERS.search(text)
        if marker:
            tally.add("marker", one.key, repr(marker.group()))
        found = whole.find(text, place)
        if found >= 0:
            place = found + len(text)
            continue
        there = chat.tokenizer.encode(text, add_special_tokens=False)
        changed = text not in decode(chat, np.asarray(there, dtype=np.int64))
        tally.add("text_changed" if changed else "text_lost", one.key, _short(text))


def _texts(one: Seen, chat: ChatFormat) -> Iterator[str]:
    for message in one.conversation.messages:
        for group in parts(message, chat.image_token):
            yield from group


def _short(text: str, length: int = 60) -> str:
    return repr(text if len(text) <= length else text[: length - 1] + "…")
