"""Conversations, EN -> pt-PT, by the models of two roles (paper, section 4.2: TranslateGemma and Gemma 3 combined).

"translator" is a translation model that takes a text and no instructions: one call a segment. What its guards refuse
goes to "editor", an instruction model that gets the whole conversation as JSON, gives a glossary first, and is asked
again with the reasons. With `translator: ""` the editor translates everything; with `editor: ""` nothing is mended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from data_prep.models import prompts
from data_prep.models.ask import ModelError, Models, Request
from data_prep.translation import editing
from data_prep.translation.guards import Fault
from data_prep.translation.segments import join, split
from data_prep.translation.work import Work
from nemo_amalia.utils.errors import DataError

PROMPT = "translate/gemma"


class Untranslatable(ValueError):
    """No translation passed. reason: the first fault's guard, or model_REASON of the translator's answer. work: what
    was tried."""

    def __init__(self, message: str, reason: str, work: Work) -> None:
        super().__init__(message)
        self.reason, self.work = reason, work


@dataclass(frozen=True, slots=True)
class Options:
    """conf/data_prep/translate.yaml.

    translator, editor: roles, "" for none. lang_codes: send TranslateGemma's own content part with language codes, for
    servers that hand it to the model's template; otherwise the template's words are written out. tries: rounds of the
    editor. assistant, quotes: segments.split. max_tokens: of one answer. suffix: what the new sample's key ends with.
    """

    translator: str = "translator"
    editor: str = "editor"
    lang_codes: bool = False
    tries: int = 3
    assistant: str = "translate"
    quotes: bool = False
    max_tokens: int = 8192
    seed: int = 0
    suffix: str = "-pt"

    def __post_init__(self) -> None:
        if not (self.translator or self.editor) or self.tries < 1:
            raise DataError(
                f"translator={self.translator!r}, editor={self.editor!r}, tries={self.tries}: name at least one role, "
                "and at least one try"
            )


@dataclass(frozen=True, slots=True)
class Translation:
    """The translated sample and how it came about: what report.Report counts."""

    sample: dict[str, Any]
    work: Work


class Translator:
    """Translates samples. evidence: nemo_amalia.variety.evidence.evidence, or None for no variety filter."""

    def __init__(self, models: Models, options: Options, evidence: Callable[[str], Any] | None = None) -> None:
        self.models, self.options, self.evidence = models, options, evidence

    def work(self, sample: Mapping[str, Any]) -> Work:
        """What there is to do; nothing is asked yet."""
        options = self.options
        return Work(split(sample, options.assistant, options.quotes), self.evidence, options.quotes)

    async def translate(self, sample: Mapping[str, Any], work: Work | None = None) -> Translation:
        """The sample in pt-PT. Raises Untranslatable when no translation passed, ModelError when a model gave none;
        `work` (of this sample) then shows how far it came.
        """
        options, work = self.options, work or self.work(sample)
        if options.translator:
            await self._by_translator(work)
        if options.editor and work.open:
            await self._by_editor(work)
        if work.open:
            worst = work.faults[work.open[0]][0]
            raise Untranslatable(f"sample {sample.get('key')}: {worst.detail}", worst.guard, work)
        texts = {place: work.text(i) for i, segment in enumerate(work.segments) for place in segment.places}
        translated = join(sample, texts)
        translated |= {"key": f"{sample.get('key', '')}{options.suffix}", "language": "pt-PT"}
        return Translation(translated, work)

    async def _by_translator(self, work: Work) -> None:
        """Every open segment alone, all at once."""
        ends = await asyncio.gather(*(self._segment(work, index) for index in work.open), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def _segment(self, work: Work, index: int) -> None:
        text, prompt = work.segments[index].masked.core, prompts.load(PROMPT)
        content: Any = prompt.render(text=text)
        if self.options.lang_codes:
            content = [{"type": "text", "source_lang_code": "en", "target_lang_code": "pt-PT", "text": text}]
        role = self.options.translator
        work.prompts.add(prompt.id)
        try:
            answer = await self._ask(role, [{"role": "user", "content": content}], prompt.id)
        except ModelError as error:
            if error.reason in ("gave_up", "refused"):  # the server's trouble, not this text's
                raise
            work.fail(index, [Fault(f"model_{error.reason}", "o tradutor não deu uma resposta completa")], role)
            return
        work.offer(index, answer.text, role, answer.model)

    async def _by_editor(self, work: Work) -> None:
        """The whole conversation, then what is refused, with the reasons."""
        role, prompt = self.options.editor, prompts.load(editing.PROMPT)
        work.prompts |= {prompt.id, prompts.load(editing.REPAIR).id}
        messages = [{"role": "user", "content": editing.first_message(work)}]
        for attempt in range(1, self.options.tries + 1):
            answer = await self._ask(role, messages, prompt.id, editing.schema(work.open))
            terms, texts = editing.read(answer.data)
            work.adopt(terms, texts)
            for index, text in texts.items():
                work.offer(index, text, role, answer.model)
            if not work.open or attempt == self.options.tries:
                return
            said = {"role": "assistant", "content": answer.text}
            messages = [*messages, said, {"role": "user", "content": editing.repair_message(work)}]

    async def _ask(self, role: str, messages: list[dict[str, Any]], prompt: str, schema: dict | None = None) -> Any:
        options = self.options
        return await self.models.ask(
            Request(role, messages, schema=schema, seed=options.seed, max_tokens=options.max_tokens, prompt=prompt)
        )
