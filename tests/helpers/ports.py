"""Ports of this machine that are free and stay so until a test's server binds them.

The kernel gives ports of the ephemeral range to every outgoing connection, Gloo's among them: a port that it named free
was taken before rank 0 listened on it. So these are from below that range, and each is named once a process.
"""

import itertools
import os
import socket

FIRST, NUMBER = 20_000, 12_000
_next = itertools.count(os.getpid() * 101)  # processes begin apart: several test processes run at a time


def free_ports(number: int) -> list[int]:
    """So many ports that nothing listens on. RuntimeError where fewer are free."""
    found: list[int] = []
    for candidate in itertools.islice(_next, NUMBER):
        port = FIRST + candidate % NUMBER
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == number:
            return found
    raise RuntimeError(f"{len(found)} of {number} ports of {FIRST} to {FIRST + NUMBER - 1} are free: stop what listens")
