"""Starts model servers quickly: TensorFlow is imported once here, and each server is a fork, a process of its own.

Reads one JSON document a line: `{"arguments": [...], "log": PATH, "environ": {...}}`, answers `{"started": PID}`, and
tells `{"ended": PID, "code": CODE}` of each that ends (negative: by that signal). At the end of its input it kills
them all; they die with it, too.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import sys
from typing import Any

from tasks.model_process.lean_import import lean_import
from tests.support.model_server.__main__ import main

_PR_SET_PDEATHSIG = 1


def serve() -> None:
    """Answers until the input ends."""
    with lean_import():
        importlib.import_module("tests.support.model_server.server")  # what the forks shall not have to import
    gc.freeze()  # nor to look through for garbage
    children: set[int] = set()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.buffer.raw, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    _tell({"ready": os.getpid()})
    pending = b""
    while True:
        for key, _ in selector.select():
            if key.fileobj == woken:
                os.read(woken, 4096)
                _tell_of_the_dead(children)
                continue
            found = os.read(sys.stdin.fileno(), 65536)
            if not found:
                for child in children:
                    os.kill(child, signal.SIGKILL)
                return
            *lines, pending = (pending + found).split(b"\n")
            for line in lines:
                child = _fork(json.loads(line))
                children.add(child)
                _tell({"started": child})


def _fork(order: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(order["environ"])
        sys.argv[1:] = order["arguments"]
        code = main()
        sys.stdout.flush()
    finally:
        os._exit(code)


def _tell_of_the_dead(children: set[int]) -> None:
    for child in list(children):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            children.discard(child)
            _tell({"ended": child, "code": os.waitstatus_to_exitcode(status)})


def _tell(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
