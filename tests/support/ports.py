"""Loopback ports for servers that have to be told theirs before they are started."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import re
import socket

# Below the ports that outgoing connections get: a server that is started again wants its old ones.
_FIRST, _BEYOND = 15_000, 31_000

# Each process that runs tests gives away ports of its own: what another has given away is free until its server
# listens, and again whenever that is killed.
_PROCESSES = 8


def free_port() -> int:
    """A loopback port that nobody listens on, and that this process has not given away yet."""
    if len(_taken()) > len(_own()) // 2:
        _taken().clear()  # the first are long over
    while True:
        port = random.choice(_own())
        if port in _taken():
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _taken().add(port)
            return port


@functools.cache
def _own() -> range:
    number = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or _PROCESSES - 1)
    return range(_FIRST + number % _PROCESSES, _BEYOND, _PROCESSES)


@functools.cache
def _taken() -> set[int]:
    return set()
