"""Requests through a gateway: so and so many, or without pause, and what answered each."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from model_registry.serving.client_messages import message_class
from model_registry.serving.client_tensors import DTYPES

_BODY = json.dumps({"inputs": {"x": [[1.0, 2.0]]}})
_SECONDS = 30.0
_PREDICT = "/tensorflow.serving.PredictionService/Predict"


@dataclass(frozen=True)
class Answer:
    """What answered a request.

    Attributes:
        version: As the model itself says.
        header: As the gateway says: `slipway-version`; empty for none.
    """

    version: int
    header: str


class Rest:
    """One client over REST; with `fresh`, each request has a connection of its own.

    An output other than `version` stands in its place.

    Raises:
        ConnectionError, RuntimeError: From a request that fails.
    """

    def __init__(
        self, port: int, model: str, *, fresh: bool = False, body: str = _BODY, output: str = "version"
    ) -> None:
        self._port, self._path, self._fresh = port, f"/v1/models/{model}:predict", fresh
        self._body, self._output = body, output
        self._connection = self._connect()

    def __call__(self) -> Answer:
        if self._fresh:
            self._connection = self._connect()
        try:
            self._connection.request("POST", self._path, self._body)
            answer = self._connection.getresponse()
            body = answer.read()
        except (http.client.HTTPException, OSError) as error:
            self._connection.close()  # what is left of a broken one would fail the next request too
            raise ConnectionError(repr(error)) from error
        if self._fresh:
            self._connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {body.decode()}")
        outputs = json.loads(body)["outputs"]
        version = (outputs if isinstance(outputs, list) else outputs[self._output])[0]
        return Answer(int(version), answer.getheader("slipway-version") or "")

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=_SECONDS)


class Grpc:
    """One client over gRPC; it never asks again by itself.

    Raises:
        RuntimeError: From a request that fails.
    """

    def __init__(self, target: str, model: str, *, named: bool = True) -> None:
        # A connection of its own: channels to the same place share theirs else.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self._channel = grpc.insecure_channel(target, options)
        self._call = self._channel.unary_unary(
            _PREDICT, response_deserializer=message_class("PredictResponse").FromString
        )
        self._request = _request(model)
        self._metadata = (("slipway-model", model),) if named else ()

    def __call__(self) -> Answer:
        try:
            answer, call = self._call.with_call(self._request, timeout=_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            raise RuntimeError(f"{error.code().name} {error.details()}") from None
        header = dict(call.initial_metadata()).get("slipway-version", "")
        return Answer(answer.outputs["version"].int64_val[0], header)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()


def many(clients: list[Any], count: int) -> Counter[Answer]:
    """Sends so many requests, shared between clients that ask side by side, and counts what answered."""

    def some(client: Any) -> Counter[Answer]:
        return Counter(client() for _ in range(count // len(clients)))

    with ThreadPoolExecutor(len(clients)) as pool:
        found: Counter[Answer] = Counter()
        for part in pool.map(some, clients):
            found += part
    for client in clients:
        client.close()
    return found


@dataclass
class Asker:
    """A client that asks without pause.

    Attributes:
        name: What kind it is.
        answers: How often each came.
        failures: What failed.
        last: The last answer.
    """

    name: str
    answers: Counter[Answer] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    last: Answer = Answer(0, "")

    @property
    def versions(self) -> set[int]:
        """Those that answered."""
        return {answer.version for answer in self.answers}


@contextmanager
def without_pause(clients: Mapping[str, Rest | Grpc], *, once: bool = False) -> Iterator[list[Asker]]:
    """Asks inside the block, each client from a thread of its own; with `once`, one request, which is waited for."""
    done = threading.Event()
    askers = [Asker(name) for name in clients]

    def ask(asker: Asker, client: Rest | Grpc) -> None:
        while True:
            try:
                asker.last = client()
                asker.answers[asker.last] += 1
            except (OSError, RuntimeError) as error:
                asker.failures.append(f"{time.monotonic():.3f} {type(error).__name__}: {error}")
            if once or done.wait(0.002):  # two cores ask, share and serve here
                break
        client.close()

    with ExitStack() as stack:
        for asker, client in zip(askers, clients.values(), strict=True):
            thread = threading.Thread(target=ask, args=(asker, client), name=asker.name)
            thread.start()
            stack.callback(thread.join)
        stack.callback(done.set)
        yield askers


def _request(model: str) -> bytes:
    request = message_class("PredictRequest")()
    request.model_spec.name = model
    tensor = request.inputs["x"]
    tensor.dtype = DTYPES["float32"]
    tensor.tensor_shape.dim.add(size=1)
    tensor.tensor_shape.dim.add(size=2)
    tensor.float_val.extend([1.0, 2.0])
    data: bytes = request.SerializeToString()
    return data
