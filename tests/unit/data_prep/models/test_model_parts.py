"""The parts of model access alone: routes, rate limits, JSON answers, prompts, counters."""

import asyncio
import json
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from data_prep.config import compose_unchecked
from data_prep.models import json_answers, prompts, wire
from data_prep.models.client import _retry_after
from data_prep.models.counters import Counters
from data_prep.models.limits import BURST_SECONDS, Bucket
from data_prep.models.routes import Price, Route, Server, routes_from, unpinned_models
from nemo_amalia.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[4]
SERVER = {"url": "http://localhost:1/v1"}
ROLE = {"server": "s", "model": "m", "version": "1"}


@pytest.mark.parametrize("path", sorted((ROOT / "conf/data_prep/models").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_models_file_is_understood(path):
    routes = routes_from(yaml.safe_load(path.read_text()))
    assert not {"main", "master", "latest"} & {route.version for route in routes.roles.values()}  # say nothing
    assert {"translator", "editor", "captioner", "generator", "judge"} <= set(routes.roles)


def optional(kind):
    """Field -> its default."""
    plain = {f.name: f.default for f in fields(kind) if f.default is not MISSING}
    return plain | {f.name: f.default_factory() for f in fields(kind) if f.default_factory is not MISSING}


@pytest.mark.parametrize("name", ["local", "paper"])
def test_every_optional_setting_of_a_models_file_can_be_overridden(name):
    """Each of every server and role, in plain key=value words, and to a value that it did not have."""
    plain = compose_unchecked("translate", [f"models={name}"]).models
    others = {str: "x", int: 7, float: 7, bool: True} | {"schema": "prompt", "images": "file"}
    names = [f"servers.{server}.{key}" for server in plain.servers for key in optional(Server)]
    names += [f"roles.{role}.{key}" for role in plain.roles for key in {*optional(Route)} - {"price", "extra"}]
    names += [f"roles.{role}.price.{key}" for role in plain.roles for key in optional(Price)]
    kinds = {**optional(Server), **optional(Route), **optional(Price)}
    new = {dotted: others.get(key := dotted.split(".")[-1], others[type(kinds[key])]) for dotted in names}
    given = compose_unchecked(
        "translate", [f"models={name}", *(f"models.{key}={value}" for key, value in new.items())]
    ).models
    assert {key: OmegaConf.select(given, key) for key in new} == new
    for role in plain.roles:
        more = compose_unchecked("translate", [f"models={name}", f"+models.roles.{role}.extra.top_p=0.9"]).models.roles
        assert more[role].extra == {"top_p": 0.9}


@pytest.mark.parametrize("name", ["local", "paper"])
def test_the_settings_that_a_models_file_writes_out_are_the_defaults(name):
    routes = routes_from(yaml.safe_load((ROOT / f"conf/data_prep/models/{name}.yaml").read_text()))
    own = {"concurrency", "schema", "images"}
    for kind, several in ((Server, routes.servers), (Route, routes.roles)):
        for one in several.values():
            assert {k: getattr(one, k) for k in optional(kind).keys() - own} == {
                k: value for k, value in optional(kind).items() if k not in own
            }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"server": {}}, r"unknown: \['server'\]"),
        ({"servers": {"s": {**SERVER, "conc": 1}}}, r"server s has unknown keys \['conc'\]"),
        ({"servers": {"s": {}}}, "server s is incomplete"),
        ({"servers": {"s": {"url": "localhost"}}}, "does not begin with http"),
        ({"servers": {"s": {**SERVER, "schema": "yes"}}}, "schema='yes'; expected one of"),
        ({"servers": {"s": {**SERVER, "concurrency": 0}}}, "concurrency=0"),
        ({"servers": {"s": SERVER}, "roles": {"judge": {**ROLE, "server": "t"}}}, "role judge is on server 't'"),
        ({"servers": {"s": SERVER}, "roles": {"judge": {"server": "s"}}}, "role judge is incomplete"),
        (
            {"servers": {"s": SERVER}, "roles": {"judge": {**ROLE, "price": {"in": 1}}}},
            "price of role judge has unknown",
        ),
    ],
)
def test_a_wrong_models_file_is_refused_in_one_line(config, message):
    with pytest.raises(UserError, match=message) as caught:
        routes_from(config)
    assert "\n" not in str(caught.value)


def test_an_unknown_role_is_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"no model has the role 'poet'; roles: \['judge'\]"):
        routes_from({"servers": {"s": SERVER}, "roles": {"judge": ROLE}}).route("poet")


class Clock:
    """Time that passes only while someone sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds
        await asyncio.sleep(0)


@settings(deadline=None)  # the machine may be busy
@given(st.floats(1, 6000), st.lists(st.floats(0.1, 500), min_size=1, max_size=60))
def test_no_minute_takes_more_than_its_limit_and_a_burst(per_minute, amounts):
    clock = Clock()
    bucket = Bucket(per_minute, clock, clock.sleep)
    taken = []

    async def run():
        for amount in amounts:
            await bucket.take(amount)
            taken.append((clock.now, amount))

    asyncio.run(run())
    burst = max(1.0, per_minute / 60 * BURST_SECONDS)
    for i, (begin, _) in enumerate(taken):
        # The last one may be larger than a burst: it goes when the bucket is full, and the next one waits for it.
        within = [amount for at, amount in taken[i:] if at - begin < 60]
        assert sum(within[:-1]) <= per_minute + burst + 1e-6


def test_an_estimate_is_corrected():
    clock = Clock()
    bucket = Bucket(60, clock, clock.sleep)

    async def run():
        await bucket.take(10)
        bucket.correct(-10)  # it took nothing after all
        await bucket.take(10)
        assert clock.now == 0
        bucket.correct(5)  # it took 15
        await bucket.take(1)
        assert clock.now == pytest.approx(6)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("value", "seconds"), [("2", 2), ("", None), ("soon", None), ("nan", None), ("-1", 0), ("1e9", 600)]
)
def test_retry_after(value, seconds):
    assert _retry_after(value) == seconds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)  # the machine may be busy
@given(JSON)
def test_json_is_read_alone_and_in_a_fence(value):
    import json

    text = json.dumps(value)
    assert json_answers.parse(text, {}) == json_answers.parse(f"```json\n{text}\n```", {}) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "não é JSON"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1', "não é JSON"),
        ('Ou {"a": 1} ou {"a": 2}', "não é JSON"),
        ('{"a": "um"}', r"em \['a'\]: 'um' is not of type 'integer'"),
        ("[" * 100_000, "não é JSON"),
    ],
)
def test_what_is_not_the_answer_is_refused_with_the_reason(text, message):
    with pytest.raises(json_answers.SchemaMismatch, match=message):
        json_answers.parse(text, {"properties": {"a": {"type": "integer"}}})


def test_json_among_words_is_found_and_a_wrong_schema_is_ours():
    assert json_answers.parse('Aqui está: {"a": 1}. Bom dia!', {"required": ["a"]}) == {"a": 1}
    with pytest.raises(UserError, match="JSON schema of a request is wrong"):
        json_answers.parse("{}", {"type": "objeto"})


@pytest.mark.parametrize("name", prompts.names())
def test_every_prompt_renders_and_only_with_its_variables(name):
    prompt = prompts.load(name)
    values = {variable: f"valor de {variable}" for variable in prompt.variables}
    text = prompt.render(**values)
    assert prompt.version >= 1 and prompt.id == f"{name}@{prompt.hash}"
    assert all(value in text for value in values.values()), "a prompt shows every value it is given"
    assert "{{" not in text and "{%" not in text
    with pytest.raises(UserError, match=r"unknown: \['intruso'\]"):
        prompt.render(**values, intruso=1)
    for variable in prompt.variables:
        with pytest.raises(UserError, match=f"missing: \\['{variable}'\\]"):
            prompt.render(**{k: v for k, v in values.items() if k != variable})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sem cabeça", "has no head"),
        ("---\nversion: 1\n---\n{{ a }}", "the head of prompt p is"),
        (
            "---\nversion: 1\nlanguage: pt-PT\nvariables: [a, b]\n---\n{{ a }}",
            r"uses \['a'\] and declares \['a', 'b'\]",
        ),
        ("---\nversion: 1\nlanguage: pt-PT\nvariables: []\n---\n{{ a }}", r"uses \['a'\] and declares \[\]"),
        ("---\nversion: 1\nlanguage: pt-PT\nvariables: []\n---\n{% if %}", "is not a template"),
    ],
)
def test_a_prompt_file_that_is_wrong_is_refused(tmp_path, text, message):
    (tmp_path / "p.md").write_text(text)
    with pytest.raises(UserError, match=message):
        prompts.load("p", tmp_path)
    with pytest.raises(UserError, match=r"no prompt 'q' .*; there are \['p'\]"):
        prompts.load("q", tmp_path)


def test_models_without_a_revision_are_named_with_the_setting_that_pins_them():
    roles = {"a": {"model": "m", "version": "main"}, "b": {"model": "n", "version": "3f2a"}}
    roles |= {"c": {"model": "o", "version": "unpinned"}, "d": {"model": "m", "version": "main"}}
    (line,) = unpinned_models({"servers": {}, "roles": roles})
    assert "provenance of every sample will say so: m@main (a, d), o@unpinned (c); give" in line
    assert line.endswith("models.roles.a.version=COMMIT")
    pinned = {role: route | {"version": "9c01"} for role, route in roles.items()}
    assert not list(unpinned_models({"servers": {}, "roles": pinned}))


def test_values_of_a_prompt_are_never_templates():
    value = "{{ 7 * 7 }} {% raw %} $x^{2}$"
    assert value in prompts.load("reask_json").render(motivo=value)


def test_counters_of_two_processes_add_up_and_a_lost_request_is_seen():
    one, two = Counters(), Counters()
    one["judge"].asked = one["judge"].answered = 2
    two["judge"].asked = 1
    two["judge"].failed["schema"] += 1
    two["translator"].cost = 0.5
    one.merge(two.as_dict())
    assert one["judge"].asked == 3 and one["judge"].failed == {"schema": 1} and one["translator"].cost == 0.5
    one["judge"].reconcile("judge")
    one["judge"].asked += 1
    with pytest.raises(RuntimeError, match="4 requests and 3 ends"):
        one["judge"].reconcile("judge")


def test_a_body_with_images_is_the_json_that_it_would_be_without_the_short_way():
    hostile = {"type": "image_url", "image_url": {"url": 'data:image/svg+xml,<svg a="\\ç\n">', "detail": "low"}}
    parts = [{"type": "text", "text": 'aspas " e \n ção'}, {"type": "image"}, hostile, {"type": "image"}]
    images = [b"\x89PNG\r\n\x1a\n" + bytes(range(256)), b"\xff\xd8\xff" + bytes(50)]
    turns = [{"role": "system", "content": "Olá"}, {"role": "user", "content": parts}]
    body = {"model": "m", "messages": wire.place_images(turns, images), "temperature": 0.5}
    assert isinstance(body["messages"][1]["content"][1]["image_url"]["url"], wire.DataUrl)
    assert wire.encode(body) == json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    assert json.loads(wire.encode(body)) == body
    with pytest.raises(ValueError, match="nan"):
        wire.encode({**body, "temperature": float("nan")})
