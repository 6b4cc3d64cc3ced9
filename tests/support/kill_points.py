"""The points at which a process can be killed, each with a number: between the calls of a store, and below them.

A process passes them in the same order each time, so whoever lets it run to its end once knows them all.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from model_registry.storage import ObjectStore
from tests.support.failing_stores import Front

# Between the calls of the store, or before each operation of the file system or HTTP request below them.
Level = Literal["calls", "system"]

_LISTINGS = {"list", "list_children", "leftovers"}
_CHANGES = {"os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.utime", "fcntl.flock"}
_WRITES = {"write", "fsync"}  # which no audit event tells of
_HEAD = re.compile(rb"[A-Z]+ [^ ]+(?= HTTP/1.1\r\n)")
# Of the blocks of a request: its head, the first of its body, and one in the middle of a part.
_BLOCKS = {0, 1, 200}


class Tripwire:
    """Counts the points that are passed, and kills the process at one of them."""

    def __init__(self, at: int | None, tell: int) -> None:
        """Passes nothing yet.

        Args:
            at: The number of the deadly point, from 0; None for none.
            tell: Descriptor to which each point is told, a line each, before it is passed.
        """
        self._at = at
        self._tell = tell
        self._passed = 0
        self._lock = threading.Lock()

    def cross(self, point: str) -> None:
        """Passes a point, or ends at it."""
        with self._lock:
            os.write(self._tell, point.replace("\n", " ").encode()[:200] + b"\n")
            if self._passed == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()
            self._passed += 1


class WatchedStore(Front):
    """Crosses the wire before and after each call."""

    def __init__(self, store: ObjectStore, wire: Tripwire) -> None:
        super().__init__(store)
        self._wire = wire

    def __getattr__(self, name: str) -> object:
        found = super().__getattr__(name)
        return found if name in ("uri", "uri_of") or not callable(found) else self._watched(name, found)

    @contextmanager
    def workspace(self, run: str) -> Iterator[Path]:
        self._wire.cross("before workspace")
        with self._store.workspace(run) as directory:
            self._wire.cross("after workspace")
            yield directory
            self._wire.cross("before the workspace's end")
        self._wire.cross("after the workspace's end")

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def watched(*args: Any, **options: Any) -> Any:
            described = " ".join([name, *(arg for arg in args if isinstance(arg, str))])
            self._wire.cross(f"before {described}")
            try:
                answer = call(*args, **options)
                if name in _LISTINGS:
                    answer = iter([*answer])
            finally:
                self._wire.cross(f"after {described}")
            return answer

        return watched


def watch_file_system(wire: Tripwire) -> None:
    """Crosses the wire before every operation that changes the file system. Cannot be undone in this process."""

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            wire.cross(f"before {event} {args[0]}")

    def look(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in _WRITES and frame.f_globals["__name__"] != __name__:
            wire.cross(f"before {called.__name__}")

    sys.addaudithook(hear)
    threading.setprofile(look)
    sys.setprofile(look)


def watch_requests(wire: Tripwire) -> None:
    """Crosses the wire before every HTTP request, before its body, in its middle, and before its answer is read.

    Cannot be undone in this process.
    """
    current = _Request()

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if event != "http.client.send":
            return
        head = _HEAD.match(args[1])
        if head:
            current.name, current.blocks = head.group().decode(), 0
        else:
            current.blocks += 1
        current.unanswered = True
        if current.blocks in _BLOCKS:
            wire.cross(f"before block {current.blocks} of {current.name}")

    def look(_: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ == "recv_into" and current.unanswered:
            current.unanswered = False
            wire.cross(f"before the answer to {current.name}")

    sys.addaudithook(hear)
    threading.setprofile(look)
    sys.setprofile(look)


class _Request(threading.local):
    """The request that a thread makes."""

    name = ""
    blocks = 0
    unanswered = False
