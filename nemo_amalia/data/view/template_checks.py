"""What a chat template does to two questions and two answers, whatever the data is; and how a finding is said."""

from __future__ import annotations

from dataclasses import dataclass

from nemo_amalia.data.encoding.chat import CLOSE, ChatFormat

WORDS = ("pergunta1", "resposta1", "pergunta2", "resposta2")


@dataclass(frozen=True)
class Finding:
    """level: fine, look or wrong. keys: the samples concerned, `count` of them in all."""

    name: str
    level: str
    text: str
    keys: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.keys)


def template_findings(chat: ChatFormat) -> list[Finding]:
    """What is wrong with the template; one finding that says so where nothing is."""
    roles = ("user", "assistant") * 2
    messages = [{"role": r, "content": [{"type": "text", "text": w}]} for r, w in zip(roles, WORDS, strict=True)]
    render = chat.tokenizer.apply_chat_template
    try:
        text = render(messages, tokenize=False)
        asked = render(messages[:1], tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates raise what they like
        said = f"{type(error).__name__}: {error}"
        return [Finding("template", "wrong", f"The chat template fails on two plain turns ({said}).")]
    lost = [word for word in WORDS if word not in text]
    if lost:
        return [Finding("template", "wrong", f"The chat template loses {', '.join(lost)} of {', '.join(WORDS)}.")]
    at = [text.find(word) for word in WORDS]
    if at != sorted(at):
        return [Finding("template", "wrong", "The chat template changes the order of the turns.")]
    before, after_first, after_last = _answer(text, at)
    found = _header_findings(before, after_first, chat)
    if not (text.startswith(asked) and text[len(asked) :].lstrip().startswith(WORDS[1])):
        said = f"Asked for an answer, the chat template ends with {asked[at[0] :]!r}; in training the answer follows "
        found.append(Finding("generation_prompt", "wrong", f"{said}{text[at[0] : at[1]]!r}."))
    added = _added(text[: at[0]], after_first, chat)
    if added:
        found.append(Finding("system", "look", f"The chat template puts {added!r} before every conversation: meant?"))
    if chat.end_of_turn not in after_first or chat.end_of_turn not in after_last:
        said = f"The chat template does not close every answer with {chat.end_of_turn}: "
        said += f"{after_first!r} follows the first and {after_last!r} the last: {CLOSE}."
        found.append(Finding("end_of_turn", "wrong", said))
    fine = f"The chat template marks answers ({before!r}), closes them and adds no system prompt."
    return found or [Finding("template", "fine", fine)]


def _answer(text: str, at: list[int]) -> tuple[str, str, str]:
    """What stands between the first question and its answer, between that and the next question, and at the end."""
    ends = [place + len(word) for place, word in zip(at, WORDS, strict=True)]
    return text[ends[0] : at[1]], text[ends[1] : at[2]], text[ends[3] :]


def _header_findings(before: str, after: str, chat: ChatFormat) -> list[Finding]:
    if not before.replace(chat.end_of_turn, "").strip():
        said = f"The chat template writes no assistant header: only {before!r} stands before an answer."
    elif before.strip() == after.strip():
        said = f"The chat template writes {before!r} before answers and before questions: nothing tells who speaks."
    else:
        return []
    return [Finding("header", "wrong", said)]


def _added(start: str, to_question: str, chat: ChatFormat) -> str:
    """What stands before the first question and not before the second."""
    header = to_question.rpartition(chat.end_of_turn)[2].strip()
    # The header first: its own first token may be BOS (ChatML's <|im_start|> often is).
    start = start.strip().removesuffix(header)
    return start.removeprefix(chat.tokenizer.bos_token or "").strip()
