"""Clients that ask a server again and again, and write down every answer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from model_registry.errors import SlipwayError
from model_registry.serving.client import Client
from tests.support.model_server_processes import RunningServer

_ROW = [[1.0, 2.0]]
# Two cores serve, ask, download and load here. A label that names nothing for 50 ms at each move was noticed.
_PAUSE = 0.025


@dataclass(frozen=True)
class Answer:
    """One request and what came of it.

    Attributes:
        began: When it was sent, by time.monotonic.
        ended: When its answer, or the failure, was there.
        version: Which version answered; None for a failure.
        error: What failed; empty for an answer.
    """

    began: float
    ended: float
    version: int | None = None
    error: str = ""


@dataclass
class Asker:
    """One client.

    Attributes:
        name: `gRPC` or `REST`.
        answers: In the order of the requests.
    """

    name: str
    answers: list[Answer] = field(default_factory=list)

    @property
    def failures(self) -> list[Answer]:
        """What got no answer."""
        return [answer for answer in self.answers if answer.error]


@contextmanager
def steady_load(server: RunningServer, model: str, label: str) -> Iterator[list[Asker]]:
    """Asks for a label inside the block: by our own client over one channel, and by REST, anew for each request.

    The client asks again where a server is away, as it does for everybody; REST has no such mercy.
    """
    done = threading.Event()
    with Client(server.target) as client:

        def grpc() -> int:
            return int(client.predict(model, {"x": _ROW}, label=label).outputs["version"][0])

        def rest() -> int:
            return _rest(server, model, label)

        askers = [Asker("gRPC"), Asker("REST")]
        threads = [
            threading.Thread(target=_ask, args=(asker, one, done), name=asker.name)
            for asker, one in zip(askers, (grpc, rest), strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            yield askers
        finally:
            done.set()
            for thread in threads:
                thread.join()


def _ask(asker: Asker, one: Callable[[], int], done: threading.Event) -> None:
    while not done.wait(_PAUSE):
        began = time.monotonic()
        try:
            version = one()
        except (SlipwayError, OSError, RuntimeError) as error:
            asker.answers.append(Answer(began, time.monotonic(), error=f"{type(error).__name__}: {error}"))
        else:
            asker.answers.append(Answer(began, time.monotonic(), version))


def _rest(server: RunningServer, model: str, label: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    try:
        connection.request("POST", f"/v1/models/{model}/labels/{label}:predict", json.dumps({"inputs": _ROW}))
        answer = connection.getresponse()
        body = answer.read().decode()
    except http.client.HTTPException as error:
        raise ConnectionError(repr(error)) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{answer.status} {body}")
    return int(json.loads(body)["outputs"]["version"][0])
