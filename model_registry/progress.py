"""How far a long transfer is, for whoever wants to know.

Stores tell how many bytes went; they do not know who listens. Nobody does, unless a command asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Transfer:
    """A transfer as it stands.

    Attributes:
        what: For a person, such as `upload to s3://bucket/models/digits/native/3/`.
        done: Bytes so far.
        total: Bytes in all.
    """

    what: str
    done: int
    total: int


Listener = Callable[[Transfer], None]

_listener: Listener | None = None


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Calls the listener for every step of every transfer inside the block, from whichever thread it runs in."""
    global _listener  # noqa: PLW0603 - transfers run in threads of libraries, which inherit no context
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


@contextmanager
def transferring(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Announces a transfer.

    Args:
        what: See Transfer.
        total: Bytes in all.

    Yields:
        What to call with the number of bytes that went, from any thread.
    """
    lock, done = threading.Lock(), 0

    def advance(count: int) -> None:
        nonlocal done
        if _listener is not None:
            with lock:
                done += count
                _listener(Transfer(what, done, total))

    advance(0)
    yield advance
