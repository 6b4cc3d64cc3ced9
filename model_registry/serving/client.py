"""A client of TensorFlow Serving over gRPC: numpy in and out, without TensorFlow.

    with Client("127.0.0.1:8500") as client:
        answer = client.predict("digits", {"image": images}, label="stable")
        answer.outputs["probabilities"], answer.version

- A signature is fetched once for each model and version or label, and what is sent is checked against it first. A
  label may move, and nobody tells: when an answer comes from another version, or a request is refused, the signature
  is fetched anew, and a request that fits the new one is sent.
- Each call has a deadline, for everything it does. A server that is UNAVAILABLE, as it is while it restarts or while
  its batching queue is full, is asked again within it, up to `retries` times; inference can be asked twice. The first
  attempt fails at once where nothing listens; the following ones wait for the connection, so that a restart of a few
  seconds costs nothing but time. `retries=0` fails at once.
- Threads share one Client, its one connection, and what it knows of signatures. A process that forks makes a Client in
  each child: gRPC's threads do not survive a fork, and a Client that did refuses to work.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy.typing as npt
from google.protobuf.message import DecodeError

from model_registry.errors import FormatError, InvalidInputError, NotFoundError, SlipwayError
from model_registry.paths import check_label
from model_registry.servable import Method, Signature
from model_registry.serving import client_calls as calls
from model_registry.serving import client_examples
from model_registry.serving.client_calls import Calls, Deadline
from model_registry.serving.client_channel import DEFAULT_MAX_MESSAGE_BYTES, Tls
from model_registry.serving.client_errors import Asked
from model_registry.serving.client_inputs import InputCheck
from model_registry.serving.client_messages import Message, message_class
from model_registry.serving.client_tensors import fill, to_array, to_signature
from model_registry.serving.version_status import ServerState, VersionStatus
from model_registry.spec_errors import nearest

__all__ = ["Client", "Prediction", "Tls"]

DEFAULT_SIGNATURE = "serving_default"
DEFAULT_TIMEOUT = 10.0

_SIGNATURE_DEF = "signature_def"
# tensorflow_serving/apis/get_model_status.proto
_STATES: dict[int, ServerState] = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_KNOWN = 1000  # models and versions whose signatures are kept
_LAST_VERSION = 2**63 - 1  # ModelSpec.version is an int64


@dataclass(frozen=True)
class Prediction:
    """An answer.

    Attributes:
        outputs: Arrays by output name, strings as bytes objects; for classify `scores` and, where the model names them,
            `classes`; for regress `outputs`.
        version: The version that answered.
    """

    outputs: dict[str, npt.NDArray[Any]]
    version: int


class Client:
    """A server, and what is known of its models.

    Args:
        target: HOST:PORT of its gRPC port.
        tls: How to speak TLS with it; None for a connection in the clear.
        timeout: Seconds for each call, unless the call says otherwise.
        retries: How often a call is tried again while the server is UNAVAILABLE.
        max_message_bytes: The largest request and the largest answer.

    Raises:
        InvalidInputError: If an argument makes no sense.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = 3,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        self._target = target
        self._timeout = Deadline.after(timeout).seconds
        self._known: dict[Asked, _Known] = {}
        self._calls = Calls(target, tls, retries, max_message_bytes)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, and the calls under way with it."""
        self._calls.close()

    def predict(
        self,
        model: str,
        inputs: Any,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = DEFAULT_SIGNATURE,
        timeout: float | None = None,
    ) -> Prediction:
        """Asks a model. A signature for classify or regress is asked by that call, with a tf.Example for each row.

        Args:
            model: Its name.
            inputs: Arrays, or what numpy makes one of, by input name; a single one where the signature has one input
                (model_registry.serving.client_inputs tells which dtypes are taken). For classify and regress: values
                [rows, ...] by feature name, or a list of serialized tf.Example messages.
            version: Which version, a number from 1; None for the newest that is AVAILABLE.
            label: Which version, by its label. Not both.
            signature: Which signature.
            timeout: Seconds for this call.

        Raises:
            InvalidInputError: If the request does not fit the signature, or the model cannot answer it.
            NotFoundError: If the server has no such model, version, label or signature.
            StorageError: If the server does not answer; transient where it may later.
            FormatError: If its answer cannot be read.
        """
        asked = self._asked(model, version, label)
        deadline = self._deadline(timeout)
        known = self._known.get(asked)
        fresh = known is None
        if known is None:
            known = self._fetch(asked, deadline)
        while True:
            try:
                check = known.check(signature, asked)
                call, request = _request(check, asked, inputs)
                response = self._calls.send(call, request, asked, deadline)
                break
            except (InvalidInputError, NotFoundError) as error:
                again = known if fresh else self._fetch(asked, deadline)
                if again.same_as(known):
                    raise self._explained(error, asked, deadline) from None
                known, fresh = again, True
        answered = response.model_spec.version.value
        if answered != known.version:
            self._known.pop(asked, None)
        return Prediction(_outputs(check.signature.method, response), answered)

    def signature(
        self,
        model: str,
        name: str = DEFAULT_SIGNATURE,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> Signature:
        """What a model takes and answers, as the server has it now; tensors sorted by name.

        Raises:
            NotFoundError: If the server has no such model, version, label or signature.
            StorageError: If the server does not answer; transient where it may later.
        """
        asked = self._asked(model, version, label)
        return self._fetch(asked, self._deadline(timeout)).check(name, asked).signature

    def signatures(
        self, model: str, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> tuple[int, tuple[Signature, ...]]:
        """The version that would answer now, and all its signatures, sorted by name. Raises as `signature` does."""
        known = self._fetch(self._asked(model, version, label), self._deadline(timeout))
        return known.version, tuple(check.signature for check in known.checks.values())

    def status(self, model: str, *, timeout: float | None = None) -> tuple[VersionStatus, ...]:
        """Every version of a model that the server knows of, ascending.

        Raises:
            NotFoundError: If it knows no such model.
            StorageError: If the server does not answer; transient where it may later.
        """
        return self._versions(self._asked(model, None, None), self._deadline(timeout))

    def _asked(self, model: str, version: Any, label: str | None) -> Asked:
        if version is not None and label is not None:
            raise InvalidInputError(f"{model}: expected a version or a label, found both: {version} and {label!r}")
        if not model:
            raise InvalidInputError("the model has no name")
        if version is not None and not (isinstance(version, int) and 1 <= version <= _LAST_VERSION):
            found = f"{type(version).__name__} {version!r}"
            raise InvalidInputError(f"{model}: expected an int from 1 to {_LAST_VERSION} as version, found {found}")
        if label is not None:
            check_label(label)  # an empty one would be none at all on the wire, and the newest version would answer
        return Asked(self._target, model, version, label)

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline.after(self._timeout if timeout is None else timeout)

    def _fetch(self, asked: Asked, deadline: Deadline) -> _Known:
        request = _METADATA_REQUEST(metadata_field=[_SIGNATURE_DEF])
        _specify(request.model_spec, asked)
        try:
            response = self._calls.send(calls.METADATA, request, asked, deadline)
        except NotFoundError as error:
            self._known.pop(asked, None)
            raise self._explained(error, asked, deadline) from None
        try:
            definitions = _SIGNATURES.FromString(response.metadata[_SIGNATURE_DEF].value).signature_def
        except DecodeError as error:
            raise FormatError(f"{self._target} told no signatures of {asked} that can be read: {error}") from None
        signatures = [to_signature(name, definitions[name]) for name in sorted(definitions)]
        checks = {found.name: InputCheck(found) for found in signatures if found is not None}
        known = _Known(response.model_spec.version.value, checks)
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[asked] = known
        return known

    def _versions(self, asked: Asked, deadline: Deadline) -> tuple[VersionStatus, ...]:
        request = _STATUS_REQUEST()
        request.model_spec.name = asked.model
        found = self._calls.send(calls.STATUS, request, asked, deadline).model_version_status
        statuses = [
            VersionStatus(item.version, _STATES.get(item.state, "UNKNOWN"), item.status.error_message) for item in found
        ]
        return tuple(sorted(statuses, key=lambda status: status.version))

    def _explained(self, error: SlipwayError, asked: Asked, deadline: Deadline) -> SlipwayError:
        """A NotFoundError with what the server does have; any other error as it is."""
        if not isinstance(error, NotFoundError) or error.hint:
            return error
        try:
            statuses = self._versions(asked, deadline)
        except NotFoundError:
            error.hint = f"the server knows no model {asked.model!r}: see its models.config, or what slipway sync says"
        except SlipwayError:
            return error
        else:
            shown = ", ".join(f"{status.version} {status.state}" for status in statuses)
            error.hint = f"its versions are {shown or 'none'}"
            if asked.label:
                error.hint += "; a label is served once its version is AVAILABLE and models.config names it"
        return error


@dataclass(frozen=True)
class _Known:
    """What a server said of a version when it was asked last."""

    version: int
    checks: dict[str, InputCheck]

    def check(self, name: str, asked: Asked) -> InputCheck:
        found = self.checks.get(name)
        if found is None:
            raise NotFoundError(
                f"{asked} on {asked.target} has no signature {name!r}{nearest(name, list(self.checks))}",
                hint=f"version {self.version} has {', '.join(self.checks) or 'none'}",
            )
        return found

    def same_as(self, other: _Known) -> bool:
        """Whether a request that one refused, the other refuses too."""
        ours, theirs = ([check.signature for check in known.checks.values()] for known in (self, other))
        return self.version == other.version and ours == theirs


_METADATA_REQUEST = message_class("GetModelMetadataRequest")
_STATUS_REQUEST = message_class("GetModelStatusRequest")
_SIGNATURES = message_class("SignatureDefMap")
_REQUESTS = {
    "predict": (calls.PREDICT, message_class("PredictRequest")),
    "classify": (calls.CLASSIFY, message_class("ClassificationRequest")),
    "regress": (calls.REGRESS, message_class("RegressionRequest")),
}


def _request(check: InputCheck, asked: Asked, inputs: Any) -> tuple[str, Message]:
    """The call to make, and its message."""
    signature = check.signature
    call, message = _REQUESTS[signature.method]
    request = message()
    if signature.method == "predict":
        for name, array, number in check.tensors(inputs):
            fill(request.inputs[name], array, number)
    else:
        client_examples.fill_examples(request.input.example_list.examples, inputs)
    _specify(request.model_spec, asked)
    request.model_spec.signature_name = signature.name
    return call, request


def _specify(spec: Message, asked: Asked) -> None:
    spec.name = asked.model
    if asked.version is not None:
        spec.version.value = asked.version
    elif asked.label is not None:
        spec.version_label = asked.label


def _outputs(method: Method, response: Message) -> dict[str, npt.NDArray[Any]]:
    if method == "predict":
        return {name: to_array(response.outputs[name], name) for name in sorted(response.outputs)}
    return client_examples.classes(response) if method == "classify" else client_examples.regressions(response)
