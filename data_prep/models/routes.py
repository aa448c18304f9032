"""Which model on which server answers which role: conf/data_prep/models/*.yaml, typed.

A pipeline asks roles ("translator", "judge"), never a server, so that one pipeline uses several models on several
servers, and a laptop and a cluster differ in one file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from nemo_amalia.utils.errors import ConfigError

SCHEMA_MODES = ("native", "prompt")
IMAGE_MODES = ("base64", "file")
MOVING = ("unpinned", "main", "master", "latest", "")  # versions that name no revision, or another one tomorrow


def check_address(url: str) -> None:
    """Raises ConfigError on a server's url that does not begin with http:// or https://."""
    if not str(url).startswith(("http://", "https://")):
        raise ConfigError(f"server url {url!r} does not begin with http:// or https://: write it out, with /v1")


@dataclass(frozen=True, slots=True)
class Server:
    """One OpenAI-compatible server.

    url: up to and with /v1. key_env: the environment variable that holds its key; empty: none is sent. concurrency:
    calls under way at once; requests_per_minute, tokens_per_minute: 0 is no limit; all three are for the whole run and
    are divided among its workers. timeout: seconds a call. retries: calls after the first one. backoff, backoff_max:
    seconds before the first retry (doubled each time) and at most. schema: "native" where the server takes
    response_format json_schema, "prompt" where the schema is written into the message. images: "file" where the server
    reads the same file system (vLLM --allowed-local-media-path). proxy: whether the environment's proxy is used.
    """

    url: str
    key_env: str = ""
    concurrency: int = 32
    requests_per_minute: float = 0
    tokens_per_minute: float = 0
    timeout: float = 600
    retries: int = 12
    backoff: float = 0.5
    backoff_max: float = 60
    schema: str = "native"
    images: str = "base64"
    proxy: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("schema", SCHEMA_MODES), ("images", IMAGE_MODES)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"server {self.url}: {name}={getattr(self, name)!r}; expected one of {allowed}")
        check_address(self.url)
        if self.concurrency < 1 or self.retries < 0 or self.timeout <= 0:
            raise ConfigError(
                f"server {self.url}: concurrency={self.concurrency}, retries={self.retries}, timeout={self.timeout}; "
                "expected at least 1, at least 0, more than 0"
            )

    def key(self) -> str:
        """The server's key. Raises ConfigError when the variable that key_env names is not set."""
        if self.key_env and not os.environ.get(self.key_env):
            raise ConfigError(
                f"server {self.url} wants a key and the environment variable {self.key_env} is empty: set it, "
                "or give the server key_env: ''"
            )
        return os.environ.get(self.key_env, "") if self.key_env else ""


@dataclass(frozen=True, slots=True)
class Price:
    """Money for a million tokens; the currency is the caller's."""

    input: float = 0.0
    output: float = 0.0

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """Price of one call."""
        return (self.input * tokens_in + self.output * tokens_out) / 1e6


@dataclass(frozen=True, slots=True)
class Route:
    """A role's model. version: a revision that never moves, part of the cache's key and of each sample's provenance;
    one of MOVING where nobody has said it, which a run then says.
    extra: fields of the request's body that this model wants (top_p, chat_template_kwargs). reasks: how often an answer
    that its schema refuses is asked again."""

    role: str
    server: str
    model: str
    version: str
    price: Price = field(default_factory=Price)
    extra: Mapping[str, Any] = field(default_factory=dict)
    reasks: int = 2

    @property
    def name(self) -> str:
        """model@version, as provenance names it."""
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True)
class Routes:
    """Servers by name and routes by role."""

    servers: Mapping[str, Server]
    roles: Mapping[str, Route]

    def route(self, role: str) -> Route:
        """The route of a role. Raises ConfigError when there is none."""
        if role not in self.roles:
            raise ConfigError(
                f"no model has the role {role!r}; roles: {sorted(self.roles)}. Add it in conf/data_prep/models/"
            )
        return self.roles[role]


def unpinned_models(models: Mapping[str, Any]) -> Iterator[str]:
    """A line that names the models of a configuration's `models` without a revision, and what to do; none without."""
    found: dict[str, list[str]] = {}
    for role, route in sorted(models["roles"].items()):
        if str(route["version"]) in MOVING:
            found.setdefault(f"{route['model']}@{route['version']}", []).append(role)
    if found:
        named = ", ".join(f"{model} ({', '.join(roles)})" for model, roles in found.items())
        yield (
            f"not pinned to a revision, and the provenance of every sample will say so: {named}; give the commit that "
            f"the server serves, as models.roles.{next(iter(found.values()))[0]}.version=COMMIT"
        )


def routes_from(config: Mapping[str, Any]) -> Routes:
    """{"servers": {name: {...}}, "roles": {role: {...}}} -> Routes.

    Raises ConfigError on unknown or missing keys, and on a role whose server is not there.
    """
    unknown = set(config) - {"servers", "roles"}
    if unknown:
        raise ConfigError(f"a models file has servers and roles; unknown: {sorted(unknown)}")
    servers = {name: _build(Server, f"server {name}", value) for name, value in config.get("servers", {}).items()}
    roles = {}
    for role, value in config.get("roles", {}).items():
        value = dict(value)
        value["price"] = _build(Price, f"price of role {role}", value.get("price") or {})
        route = _build(Route, f"role {role}", {"role": role, **value})
        if route.server not in servers:
            raise ConfigError(
                f"role {role} is on server {route.server!r}; servers: {sorted(servers)}. Add it, or rename"
            )
        roles[role] = route
    return Routes(servers, roles)


def _build(kind: type, what: str, values: Mapping[str, Any]) -> Any:
    known = {item.name for item in fields(kind)}
    unknown = set(values) - known
    if unknown:
        raise ConfigError(f"{what} has unknown keys {sorted(unknown)}; known: {sorted(known)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{what} is incomplete ({error}): add what is missing") from error
