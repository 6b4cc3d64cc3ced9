"""The child: imports TensorFlow while the parent still works out the plan, then does it stage by stage.

Reads messages from standard input, one a line, and writes an Event a stage to the file descriptor it was
given. When standard input closes the parent is gone, and so is the reason to go on, for this process and for
all it started.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import TypeAdapter

from model_registry.errors import SlipwayError
from tasks.model_process.error_lines import reason
from tasks.model_process.lean_import import lean_import
from tasks.model_process.messages import (
    ANSWER,
    CONVERT,
    ESTIMATE,
    INSPECT,
    PREDICT,
    PREFLIGHT,
    PREPARE,
    REPLAY,
    SURVEY,
    TIME,
    VALIDATE,
    Event,
    Failure,
)

Message = TypeVar("Message")
Receive = Callable[[type[Message]], Message]
Stages = Iterator[tuple[str, Callable[[], Any]]]

_MODULES = {
    PREPARE: "tasks.model_process.preparing",
    VALIDATE: "tasks.model_process.validating",
    PREDICT: "tasks.model_process.predicting",
    SURVEY: "tasks.model_process.surveying",
    PREFLIGHT: "tasks.model_process.preflight",
    CONVERT: "tasks.model_process.converting",
    ESTIMATE: "tasks.model_process.estimating",
    TIME: "tasks.model_process.timing",
    INSPECT: "tasks.model_process.reading",
    ANSWER: "tasks.model_process.answering",
    REPLAY: "tasks.model_process.replaying",
}

_NO_SPACE = os.strerror(errno.ENOSPC)


def main() -> None:
    """Runs the role named on the command line, and never returns."""
    role, descriptor = sys.argv[1], int(sys.argv[2])
    inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    with lean_import():
        stages: Callable[[Receive[Any]], Stages] = importlib.import_module(_MODULES[role]).stages
    gc.freeze()  # what was imported stays: the collector need not go through it while the model is worked on

    def receive(kind: type[Message]) -> Message:
        return TypeAdapter(kind).validate_json(inbox.get())

    status = 0
    with os.fdopen(descriptor, "wb", buffering=0) as events:
        for stage, work in stages(receive):
            event = _done(stage, work)
            events.write(TypeAdapter(Event).dump_json(event) + b"\n")
            if event.failure is not None:
                status = 1
                break
    with contextlib.suppress(OSError, ValueError):  # the model may have closed them
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)  # TensorFlow takes half a second to come down in order, for nothing


def _listen(inbox: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        inbox.put(line)
    os.killpg(os.getpgrp(), signal.SIGKILL)  # the client made this process the leader of a group of its own


def _done(stage: str, work: Callable[[], Any]) -> Event:
    started = time.perf_counter()
    try:
        result = work()
    except SlipwayError as error:
        failure = Failure(error.message, error.hint)
        _log_trace()
    except Exception as error:  # noqa: BLE001 - whatever a model provokes ends as a sentence, with the trace in the log
        full = _NO_SPACE in str(error)  # an OSError, or one of TensorFlow's own
        hint = "free some space where the registry lies" if full else None
        failure = Failure(f"could not {stage} the model: {_NO_SPACE if full else reason(error)}", hint)
        _log_trace()
    else:
        seconds = time.perf_counter() - started
        return Event(stage, seconds, TypeAdapter(type(result)).dump_python(result, mode="json"))
    return Event(stage, time.perf_counter() - started, failure=failure)


def _log_trace() -> None:
    with contextlib.suppress(OSError, ValueError):  # the model may have closed stderr, and the parent shall hear why
        traceback.print_exc()


if __name__ == "__main__":
    main()
