"""Models against the real `transformers serve` with a tiny LLaVA-NeXT: text, images, schemas, the cache."""

import asyncio
import io

import pytest
import tiny_hf
import tiny_server
from PIL import Image

from data_prep.models.answer_cache import AnswerCache
from data_prep.models.ask import ModelError, Models, Request
from data_prep.models.routes import routes_from

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        bool(tiny_server.missing()), reason=f"install the extra data-prep: {', '.join(tiny_server.missing())} not here"
    ),
]
TEXT = [{"role": "user", "content": "O que se vê?"}]


def png(colour):
    data = io.BytesIO()
    Image.new("RGB", (40, 60), colour).save(data, "PNG")
    return data.getvalue()


def test_a_real_server_answers_text_images_and_wrong_requests(tmp_path):
    model = tiny_hf.llava_next(tmp_path / "model")
    # Random weights never stop: one printable character is an answer here, and ends it.
    printable = set(range(4 + 0, 4 + 94))  # the first bytes of the tokenizer's alphabet are ! to ~
    others = [token for token in range(tiny_hf.VOCABULARY) if token not in printable]
    tiny_hf.edit_json(model / "generation_config.json", eos_token_id=sorted(printable), suppress_tokens=others)
    with tiny_server.serve(model, tmp_path) as url:
        text, again, red, cut, wrong, counts = asyncio.run(asked(url, str(model), tmp_path / "cache"))
    assert len(text.text) == 1 and text.tokens_in > 10 and text.tokens_out == 1 and text.attempts == 1
    assert again.cached and again.text == text.text
    assert red.tokens_in > text.tokens_in + 16 and len(red.text) == 1  # the server saw the image: a tile is 16 tokens
    assert isinstance(cut, ModelError) and cut.reason == "truncated"
    assert isinstance(wrong, ModelError) and wrong.reason == "schema"
    assert counts.calls == 1 + 1 + 1 + 3 and counts.reasked == 2 and not counts.retried
    assert counts.failed == {"truncated": 1, "schema": 1} and counts.tokens_in > red.tokens_in


async def asked(url, model, cache):
    server = {"url": url, "schema": "prompt", "retries": 0, "timeout": 300}
    roles = {
        "captioner": {"server": "s", "model": model, "version": "random"},
        "stranger": {"server": "s", "model": "not/this-one", "version": "1"},
    }
    async with Models(routes_from({"servers": {"s": server}, "roles": roles}), AnswerCache(cache)) as models:
        with pytest.raises(ModelError, match="pinned to") as caught:
            await models.ask(Request("stranger", TEXT, max_tokens=8))
        assert caught.value.reason == "refused"

        async def one(**change):
            try:
                return await models.ask(
                    Request("captioner", **{"messages": TEXT, "max_tokens": 8, "seed": 0, **change})
                )
            except ModelError as error:
                return error

        image = [{"type": "image"}, {"type": "text", "text": "O que se vê?"}]
        with_image = {"messages": [{"role": "user", "content": image}], "images": [png("red")]}
        answers = [await one(), await one(), await one(**with_image), await one(max_tokens=1)]
        answers.append(await one(schema={"type": "object"}))
        models.counters["captioner"].reconcile("captioner")
        return (*answers, models.counters["captioner"])
