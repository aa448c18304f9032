"""Asking models, against the scripted double: routing, retries, limits, schemas, the cache and the counters."""

import asyncio
import base64
import json
import time
from email.utils import formatdate

import pytest
from model_double import ModelDouble, Reply, texts

from data_prep.models.answer_cache import AnswerCache
from data_prep.models.ask import ModelError, Models, Request
from data_prep.models.routes import routes_from
from nemo_amalia.utils.errors import UserError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
JPEG = b"\xff\xd8\xff" + bytes(20)
SCHEMA = {
    "type": "object",
    "properties": {"cor": {"enum": ["verde", "azul"]}},
    "required": ["cor"],
    "additionalProperties": False,
}
HELLO = [{"role": "user", "content": "Olá"}]


def models(double, cache=None, workers=1, role=None, **server):
    settings = {"url": double.url, "backoff": 0.01, "backoff_max": 0.02, "timeout": 5, **server}
    roles = {"judge": {"server": "s", "model": "tiny", "version": "abc", **(role or {})}}
    return Models(routes_from({"servers": {"s": settings}, "roles": roles}), cache, workers)


def ask(double, *requests, cache=None, **settings):
    """The answers to requests that are asked at once, and the Models."""

    async def run():
        async with models(double, cache, **settings) as asked:
            results = await asyncio.gather(*(asked.ask(r) for r in requests), return_exceptions=True)
            for role, counts in asked.counters.items():
                counts.reconcile(role)
            return results, asked.counters["judge"]

    return asyncio.run(run())


def one(double, request=None, **settings):
    (result,), counts = ask(double, request or Request("judge", HELLO), **settings)
    if isinstance(result, BaseException):
        raise result
    return result, counts


def test_an_answer_carries_its_model_its_tokens_and_its_cost():
    with ModelDouble(Reply("Bom dia", tokens=(1000, 500))) as double:
        double.script = lambda body, number: Reply("Bom dia", tokens=(1000, 500))
        answer, counts = one(double, role={"price": {"input": 2.0, "output": 4.0}})
    assert (answer.text, answer.data, answer.model) == ("Bom dia", None, "tiny@abc")
    assert (answer.tokens_in, answer.tokens_out, answer.cached, answer.attempts) == (1000, 500, False, 1)
    assert answer.cost == counts.cost == pytest.approx(0.004)
    assert double.requests[0] == {"model": "tiny", "messages": HELLO, "temperature": 0.0, "max_tokens": 2048}


def test_roles_go_to_their_own_models_and_servers():
    with ModelDouble("da primeira") as first, ModelDouble("da segunda") as second:
        config = {
            "servers": {"a": {"url": first.url}, "b": {"url": second.url}},
            "roles": {
                "translator": {"server": "a", "model": "t", "version": "1", "extra": {"top_p": 0.9}},
                "judge": {"server": "b", "model": "j", "version": "2"},
            },
        }

        async def run():
            async with Models(routes_from(config)) as asked:
                return [(await asked.ask(Request(r, HELLO, seed=3))).text for r in ("translator", "judge")]

        assert asyncio.run(run()) == ["da primeira", "da segunda"]
        assert first.requests[0]["model"] == "t" and first.requests[0]["top_p"] == 0.9
        assert second.requests[0]["model"] == "j" and second.requests[0]["seed"] == 3


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        (Reply(status=503), "503"),
        (Reply(status=429), "429"),
        (Reply(status=500, raw="Internal Server Error"), "500"),
        (Reply(reset=True), "reset"),
        (Reply(raw="{not json"), "malformed"),
        (Reply(raw='{"choices": []}'), "malformed"),
        (Reply(raw='{"choices": [{"message": {"content": 7}}]}'), "malformed"),
        (Reply(delay=0.5), "timeout"),
    ],
)
def test_trouble_is_tried_again(trouble, cause):
    with ModelDouble(lambda body, number: trouble if number <= 2 else "por fim") as double:
        answer, counts = one(double, timeout=0.2 if trouble.delay else 5)
    assert answer.text == "por fim" and answer.attempts == 3
    assert dict(counts.retried) == {cause: 2} and counts.calls == 3


def test_a_server_that_dies_and_comes_back_is_waited_for():
    double = ModelDouble("de volta")
    double.start()
    double.stop()

    async def run():
        async with models(double, retries=40, backoff=0.02, backoff_max=0.05) as asked:
            answer = asyncio.create_task(asked.ask(Request("judge", HELLO)))
            await asyncio.sleep(0.15)
            double.start()
            return await answer, asked.counters["judge"]

    answer, counts = asyncio.run(run())
    double.stop()
    assert answer.text == "de volta" and counts.retried["refused"] >= 1


def test_a_server_that_stays_dead_is_an_error_that_names_it():
    double = ModelDouble()
    double.start()
    double.stop()
    with pytest.raises(ModelError, match="server s .* gave no answer in 3 calls") as caught:
        one(double, retries=2)
    assert caught.value.reason == "gave_up"


def test_a_request_that_the_server_refuses_is_not_sent_twice():
    with ModelDouble(Reply(status=404)) as double:
        double.script = lambda body, number: Reply(status=404, raw='{"error": "no model tiny"}')
        with pytest.raises(ModelError, match="404: .*no model tiny") as caught:
            one(double)
    assert caught.value.reason == "refused" and len(double.requests) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_holds_back_every_caller(form):
    value = "0.4" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    script = lambda body, number: Reply(status=429, headers={"retry-after": value}) if number == 1 else "agora"  # noqa: E731
    with ModelDouble(script) as double:

        async def run():
            async with models(double, concurrency=1) as asked:
                await asyncio.gather(*(asked.ask(Request("judge", HELLO, seed=seed)) for seed in range(4)))

        asyncio.run(run())
    # The date has whole seconds: between 1 and 2 of them are left.
    assert min(double.times[1:]) - double.times[0] >= (0.4 if form == "seconds" else 0.9)


def test_no_more_calls_at_once_than_the_server_takes():
    with ModelDouble(lambda body, number: Reply(delay=0.03)) as double:
        ask(double, *(Request("judge", HELLO, seed=seed) for seed in range(12)), concurrency=3)
        assert double.most_under_way == 3
    with ModelDouble(lambda body, number: Reply(delay=0.03)) as double:  # this process is one of two
        ask(double, *(Request("judge", HELLO, seed=seed) for seed in range(8)), concurrency=4, workers=2)
        assert double.most_under_way == 2


def test_json_that_the_schema_allows_is_data():
    with ModelDouble('```json\n{"cor": "verde"}\n```') as double:
        answer, _ = one(double, Request("judge", HELLO, schema=SCHEMA))
    assert answer.data == {"cor": "verde"}
    asked = double.requests[0]["response_format"]
    assert asked["type"] == "json_schema" and asked["json_schema"]["schema"] == SCHEMA


def test_a_wrong_answer_is_asked_again_with_the_reason_and_counted():
    replies = ["não sei", '{"cor": "roxo"}', '{"cor": "azul"}']
    with ModelDouble(lambda body, number: replies[number - 1]) as double:
        answer, counts = one(double, Request("judge", HELLO, schema=SCHEMA))
    assert answer.data == {"cor": "azul"} and answer.attempts == 3 and counts.reasked == 2
    assert answer.tokens_in == 30
    last = double.requests[2]["messages"]
    assert [m["role"] for m in last] == ["user", "assistant", "user", "assistant", "user"]
    assert "não é JSON válido" in texts(double.requests[1])[-1]
    assert last[3]["content"] == '{"cor": "roxo"}' and "['cor']: 'roxo' is not one of" in last[4]["content"]


def test_an_answer_that_stays_wrong_is_an_error():
    with ModelDouble('{"cor": "roxo"}') as double:
        with pytest.raises(ModelError, match="no answer that its schema allows in 3 tries") as caught:
            one(double, Request("judge", HELLO, schema=SCHEMA))
    assert caught.value.reason == "schema" and len(double.requests) == 3


def test_a_server_without_schemas_reads_it_in_the_message():
    with ModelDouble('{"cor": "verde"}') as double:
        one(double, Request("judge", HELLO, schema=SCHEMA), schema="prompt")
    assert "response_format" not in double.requests[0]
    assert json.dumps(SCHEMA, ensure_ascii=False) in texts(double.requests[0])[-1]


@pytest.mark.parametrize(("reply", "reason"), [(Reply(finish="length"), "truncated"), (Reply("  "), "empty")])
def test_half_an_answer_is_not_an_answer(reply, reason, tmp_path):
    with ModelDouble(lambda body, number: reply) as double:
        cache = AnswerCache(tmp_path)
        (error,), counts = ask(double, Request("judge", HELLO), cache=cache)
    assert isinstance(error, ModelError) and error.reason == reason
    assert len(cache) == 0 and counts.failed == {reason: 1}


def test_images_go_where_their_placeholders_are(tmp_path):
    file = tmp_path / "foto ção.jpg"
    file.write_bytes(JPEG)
    parts = [{"type": "text", "text": "Antes"}, {"type": "image"}, {"type": "text", "text": "e"}, {"type": "image"}]
    request = Request("judge", [{"role": "user", "content": parts}], images=(PNG, file))
    with ModelDouble() as double:
        one(double, request)
        one(double, request, images="file")
        one(double, Request("judge", HELLO, images=(PNG,)))
    sent, by_file, before = (r["messages"][0]["content"] for r in double.requests)
    assert [p["type"] for p in sent] == ["text", "image_url", "text", "image_url"]
    head, data = sent[1]["image_url"]["url"].split(",")
    assert head == "data:image/png;base64" and base64.b64decode(data) == PNG
    assert sent[3]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert by_file[3]["image_url"]["url"] == file.as_uri()
    assert [p["type"] for p in before] == ["image_url", "text"]


@pytest.mark.parametrize(
    ("content", "images", "message"),
    [
        ([{"type": "image"}], (), "1 image parts and 0 images"),
        ([{"type": "image"}], (PNG, PNG), "1 image parts and 2 images"),
        ("Olá", (b"%PDF",), "expected JPEG, PNG, WebP or GIF"),
    ],
)
def test_images_that_do_not_fit_are_an_error_of_the_caller(content, images, message):
    with ModelDouble() as double, pytest.raises(UserError, match=message):
        one(double, Request("judge", [{"role": "user", "content": content}], images=images))


def test_the_key_is_sent_and_its_absence_is_named(monkeypatch):
    monkeypatch.setenv("DOUBLE_KEY", "segredo")
    with ModelDouble() as double:
        one(double, key_env="DOUBLE_KEY")
        assert double.headers[0]["authorization"] == "Bearer segredo"
        monkeypatch.delenv("DOUBLE_KEY")
        with pytest.raises(UserError, match="environment variable DOUBLE_KEY is empty"):
            one(double, key_env="DOUBLE_KEY")


def test_the_cache_answers_the_second_time_and_every_difference_is_another_question(tmp_path):
    base = dict(role="judge", messages=HELLO, images=(PNG,), seed=1, prompt="p@1")
    changes = [
        {},
        {"messages": [{"role": "user", "content": "Adeus"}]},
        {"images": (JPEG,)},
        {"seed": 2},
        {"temperature": 0.5},
        {"max_tokens": 9},
        {"prompt": "p@2"},
        {"schema": {}},
    ]
    requests = [Request(**{**base, **change}) for change in changes]
    with ModelDouble(lambda body, number: str(number)) as double:
        first, _ = ask(double, *requests, cache=AnswerCache(tmp_path))
        assert len(double.requests) == len(requests)
        second, counts = ask(double, *requests, cache=AnswerCache(tmp_path))
        assert len(double.requests) == len(requests)
        assert [a.text for a in first] == [a.text for a in second]
        assert all(a.cached and a.attempts == 0 for a in second) and counts.cached == len(requests)
        assert counts.cost == counts.tokens_in == 0
        for role in ({"version": "def"}, {"model": "other"}, {"extra": {"top_k": 5}}):
            ask(double, requests[0], cache=AnswerCache(tmp_path), role=role)
    assert len(double.requests) == len(requests) + 3


def test_the_same_question_at_once_is_one_call(tmp_path):
    with ModelDouble(lambda body, number: Reply(delay=0.05)) as double:
        results, counts = ask(double, *[Request("judge", HELLO)] * 5, cache=AnswerCache(tmp_path))
    assert len(double.requests) == 1 and sorted(r.cached for r in results) == [False] + [True] * 4
    assert counts.answered == 1 and counts.cached == 4


def test_what_was_asked_again_is_cached_as_its_end(tmp_path):
    with ModelDouble(lambda body, number: '{"cor": "azul"}' if number == 2 else "?") as double:
        for _ in range(2):
            answer, _ = one(double, Request("judge", HELLO, schema=SCHEMA), cache=AnswerCache(tmp_path))
    assert answer.cached and answer.data == {"cor": "azul"} and answer.tokens_in == 20 and len(double.requests) == 2


def test_a_request_beyond_a_megabyte_and_a_redirect(tmp_path):
    big = JPEG + bytes(3 << 20)
    away = Reply(status=302, headers={"location": "/elsewhere"})
    with ModelDouble(lambda body, number: away if number == 2 else "grande") as double:
        answer, _ = one(double, Request("judge", HELLO, images=(big,)))
        assert answer.text == "grande"
        sent = double.requests[0]["messages"][0]["content"][0]["image_url"]["url"]
        assert base64.b64decode(sent.split(",")[1]) == big
        with pytest.raises(ModelError, match="refused a request .302"):
            one(double)
    assert len(double.requests) == 2
