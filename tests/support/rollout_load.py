"""Steady load through a gateway: clients that ask at a rate over connections that stay, and note every answer.

Each request has an input of its own, so that a version that refuses a share of all inputs refuses that share of these.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import grpc

from model_registry.serving.client_messages import message_class
from model_registry.serving.client_tensors import DTYPES

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_SECONDS = 30.0
_REFUSED = "this version refuses"  # what tiny_models says


@dataclass(frozen=True)
class Answer:
    """One request and what came of it.

    Attributes:
        api: `rest` or `grpc`.
        began: Unix seconds.
        ended: Likewise.
        version: Which version answered, as the model itself says; None for a failure.
        header: Which one did, as the gateway says; empty for none.
        error: What failed; empty for an answer.
    """

    api: str
    began: float
    ended: float
    version: int | None = None
    header: str = ""
    error: str = ""

    @property
    def refused(self) -> bool:
        """Whether a version refused the input, as it was made to."""
        return _REFUSED in self.error


class Ask(Protocol):
    """A client: sends one request with a number as its input."""

    def __call__(self, number: float) -> tuple[int, str]:
        """The version that the model says it is, and the one that the gateway says.

        Raises:
            OSError, RuntimeError: If it fails.
        """
        ...


@dataclass
class Load:
    """What was asked so far.

    Attributes:
        model: What is asked.
        clients: How many ask side by side.
        pace: Requests a second that all of them send, or fewer where answers take longer; may be changed.
        answers: All that are over, in no order.
    """

    model: str
    clients: int
    pace: float
    answers: list[Answer] = field(default_factory=list)

    @property
    def failures(self) -> list[Answer]:
        """What got no answer."""
        return [answer for answer in [*self.answers] if answer.error]

    @property
    def unlike(self) -> list[Answer]:
        """Answers of another version than the gateway says; one whose gateway says nothing is among them."""
        answers = [answer for answer in [*self.answers] if not answer.error]
        return [answer for answer in answers if answer.header != f"{self.model}:{answer.version}"]

    def counts(self) -> Counter[int | None]:
        """How many answers each version has given; None counts failures."""
        return Counter(answer.version for answer in [*self.answers])

    def between(self, start: float, end: float, api: str = "") -> Counter[int | None]:
        """As `counts`, of the requests that began and ended in between.

        Args:
            start: Unix seconds.
            end: Likewise.
            api: Of this one only.
        """
        within = (one for one in [*self.answers] if start <= one.began and one.ended <= end and api in ("", one.api))
        return Counter(answer.version for answer in within)


@contextmanager
def asking(rest_port: int, target: str, model: str, *, clients: int = 4, pace: float) -> Iterator[Load]:
    """Asks inside the block, every other client over gRPC.

    Args:
        rest_port: Where the gateway takes REST.
        target: Where it takes gRPC.
        model: What is asked.
        clients: How many ask side by side, each over a connection of its own.
        pace: Requests a second that all of them send at first.
    """
    done = threading.Event()
    load = Load(model, clients, pace)

    def ask(number: int) -> None:
        chance = random.Random(time.monotonic_ns() + number)
        api = ("rest", "grpc")[number % 2]
        client = _Rest(rest_port, model) if api == "rest" else _Grpc(target, model)
        due = time.monotonic() + chance.uniform(0, clients / load.pace)
        while not done.wait(max(0.001, due - time.monotonic())):
            due = max(due, time.monotonic()) + clients / load.pace  # what was late is not made up for
            load.answers.append(_answer(api, client, chance.uniform(-1e6, 1e6)))
        client.close()

    threads = [threading.Thread(target=ask, args=(number,), name=f"client {number}") for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _answer(api: str, client: Ask, number: float) -> Answer:
    began = time.time()
    try:
        version, header = client(number)
    except (OSError, RuntimeError) as error:
        return Answer(api, began, time.time(), error=f"{type(error).__name__}: {error}")
    return Answer(api, began, time.time(), version, header)


class _Rest:
    def __init__(self, port: int, model: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
        self._path = f"/v1/models/{model}:predict"
        self.close: Callable[[], None] = self._connection.close

    def __call__(self, number: float) -> tuple[int, str]:
        try:
            self._connection.request("POST", self._path, json.dumps({"inputs": {"x": [[number, 1.0]]}}))
            answer = self._connection.getresponse()
            body = answer.read()
        except http.client.HTTPException as error:
            self._connection.close()
            raise ConnectionError(repr(error)) from error
        except OSError:
            self._connection.close()
            raise
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {body.decode(errors='replace')}")
        return int(json.loads(body)["outputs"]["version"][0]), answer.getheader("slipway-version") or ""


class _Grpc:
    """It never asks again by itself."""

    def __init__(self, target: str, model: str) -> None:
        # A connection of its own: channels to the same place share theirs else.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        channel = grpc.insecure_channel(target, options)
        self._call = channel.unary_unary(_PREDICT, response_deserializer=message_class("PredictResponse").FromString)
        self._model = model
        self._metadata = (("slipway-model", model),)
        self.close: Callable[[], None] = channel.close

    def __call__(self, number: float) -> tuple[int, str]:
        request = message_class("PredictRequest")()
        request.model_spec.name = self._model
        tensor = request.inputs["x"]
        tensor.dtype = DTYPES["float32"]
        tensor.tensor_shape.dim.add(size=1)
        tensor.tensor_shape.dim.add(size=2)
        tensor.float_val.extend([number, 1.0])
        try:
            answer, call = self._call.with_call(request.SerializeToString(), timeout=_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            raise RuntimeError(f"{error.code().name} {error.details()}") from None
        return int(answer.outputs["version"].int64_val[0]), dict(call.initial_metadata()).get("slipway-version", "")
