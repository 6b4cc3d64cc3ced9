"""Calls to one server: within their deadline, again while it is UNAVAILABLE, refusals as errors of the tree."""

from __future__ import annotations

import math
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from model_registry.errors import InvalidInputError, SlipwayError, StorageError
from model_registry.serving.client_channel import Tls, open_channel
from model_registry.serving.client_errors import Asked, is_handshake, translated
from model_registry.serving.client_messages import Message, message_class

PREDICT = "PredictionService/Predict"
CLASSIFY = "PredictionService/Classify"
REGRESS = "PredictionService/Regress"
METADATA = "PredictionService/GetModelMetadata"
STATUS = "ModelService/GetModelStatus"
# What the gateway's routes match (model_registry.serving.gateway.envoy_routes).
MODEL_METADATA = "slipway-model"
_MODEL = re.compile(r"[A-Za-z0-9._-]+")
_ANSWERS = {
    PREDICT: "PredictResponse",
    CLASSIFY: "ClassificationResponse",
    REGRESS: "RegressionResponse",
    METADATA: "GetModelMetadataResponse",
    STATUS: "GetModelStatusResponse",
}

_BACKOFF = (0.1, 2.0)  # seconds, the first and the longest
# gRPC adds the seconds to the time of day: past what that can hold, a call would be over before it began.
_LONGEST = 365 * 86_400.0


@dataclass(frozen=True)
class Deadline:
    """When a call's time is over.

    Attributes:
        seconds: How long it has.
        end: Its end, by `time.monotonic`.
    """

    seconds: float
    end: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """A deadline so many seconds from now, a year at most.

        Raises:
            InvalidInputError: If that is no time.
        """
        if not 0 < seconds < math.inf:
            raise InvalidInputError(f"the timeout is {seconds}, expected seconds above 0")
        seconds = min(seconds, _LONGEST)
        return cls(seconds, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds left, 0 when it is over."""
        return max(self.end - time.monotonic(), 0.0)


class Calls:
    """One channel, and the calls that go through it. Threads share it.

    Args:
        target: HOST:PORT of the server.
        tls: How to speak TLS with it; None for a connection in the clear.
        retries: How often a call is tried again while the server is UNAVAILABLE.
        max_message_bytes: The largest request and the largest answer.

    Raises:
        InvalidInputError: If an argument makes no sense.
    """

    def __init__(self, target: str, tls: Tls | None, retries: int, max_message_bytes: int) -> None:
        self._retries = retries
        self._process = os.getpid()
        self._closed = False
        self._channel = open_channel(target, tls, max_message_bytes)
        self._calls = {method: self._call(method, answer) for method, answer in _ANSWERS.items()}

    def close(self) -> None:
        """Ends the connection, and the calls under way with it."""
        self._closed = True
        self._channel.close()

    def send(self, method: str, request: Message, asked: Asked, deadline: Deadline) -> Message:
        """Asks until there is an answer, a refusal, or no time left.

        Args:
            method: Such as `PREDICT`.
            request: Its message.
            asked: What it is about, for the messages.
            deadline: When it must be over.

        Raises:
            SlipwayError: What the server or the lack of one means; see model_registry.serving.client_errors.
        """
        if os.getpid() != self._process:
            raise InvalidInputError(
                f"this client was made in process {self._process}, before a fork", hint="make one in each process"
            )
        call = self._calls[method]
        metadata = _named(asked.model)
        away = ""
        attempt = 0
        while True:
            try:
                # The first attempt fails at once where nothing listens; later ones wait for the connection.
                return call(request, timeout=deadline.left, metadata=metadata, wait_for_ready=attempt > 0)
            except grpc.RpcError as error:
                code, details = error.code(), error.details() or ""
                if code is grpc.StatusCode.CANCELLED and self._closed:
                    raise _closed(details) from None
            except ValueError as error:  # gRPC's way to say that the channel was closed before
                raise _closed(str(error)) from None
            if away and code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise _stayed_away(asked, deadline, away)
            unavailable = code is grpc.StatusCode.UNAVAILABLE and not is_handshake(details)
            if not unavailable or attempt >= self._retries:
                raise translated(code.name, details, asked, deadline.seconds)
            away = away or details
            pause = min(_BACKOFF[0] * 2**attempt, _BACKOFF[1]) * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load
            if pause >= deadline.left:
                raise _stayed_away(asked, deadline, away)
            time.sleep(pause)
            attempt += 1

    def _call(self, method: str, answer: str) -> Callable[..., Message]:
        call: Callable[..., Message] = self._channel.unary_unary(
            f"/tensorflow.serving.{method}",
            request_serializer=_serialized,
            response_deserializer=message_class(answer).FromString,
        )
        return call


def _named(model: str) -> tuple[tuple[str, str], ...]:
    """Tells a gateway what the message is about, which it cannot read; a server does not mind.

    What cannot be a model's name might be no header either; the server answers that it has none of it.
    """
    return ((MODEL_METADATA, model),) if _MODEL.fullmatch(model) else ()


def _serialized(message: Message) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _closed(details: str) -> InvalidInputError:
    return InvalidInputError(f"this client was closed: {details}", hint="make another one")


def _stayed_away(asked: Asked, deadline: Deadline, away: str) -> SlipwayError:
    error = translated("UNAVAILABLE", away, asked, deadline.seconds)
    message = f"{error.message}; it did not recover within {deadline.seconds:g} s"
    return StorageError(message, hint=error.hint, transient=True)
