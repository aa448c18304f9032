"""Whether the servers of a run are there, before it waits for them: a refused call is tried again for many minutes."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from data_prep.models.routes import check_address

SECONDS = 2.0  # for a connection


def check_addresses(models: Mapping[str, Any]) -> None:
    """Raises ConfigError on a server's url that is no address: no server will ever come there."""
    for server in models["servers"].values():
        check_address(server["url"])


def silent_servers(models: Mapping[str, Any]) -> Iterator[str]:
    """A line for each server of the configuration's `models` that takes no connection; the roles that it answers.

    No error: what was asked before is answered from the cache, and a server may still come.
    """
    for name, server in models["servers"].items():
        roles = sorted(role for role, route in models["roles"].items() if route["server"] == name)
        if roles and not server.get("proxy") and not _takes_connections(server["url"]):
            yield (
                f"no server at {server['url']} yet, which answers {', '.join(roles)}: calls are tried again and "
                f"again; start it, or name another with models.servers.{name}.url=... or models=..."
            )


def _takes_connections(url: str) -> bool:
    place = urlsplit(url)
    port = place.port or (443 if place.scheme == "https" else 80)
    with contextlib.suppress(OSError), socket.create_connection((place.hostname, port), SECONDS):
        return True
    return False
