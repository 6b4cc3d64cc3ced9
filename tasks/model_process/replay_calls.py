"""A recorded request, as a client sends it over gRPC and over REST, and what the server answers to it, as arrays.

REST is as https://www.tensorflow.org/tfx/serving/api_rest has it, in columns. Its JSON keeps each number's value
(json_tensor.cc writes as many digits as it takes), and has no form for some dtypes.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from model_registry.servable import Signature
from model_registry.serving.client_tensors import holds, whole_numbers

Array = npt.NDArray[Any]
Answer = dict[str, Array]

# json_tensor.cc, AddValueToTensor: the others are Unimplemented.
JSON_DTYPES = frozenset(
    {"float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool", "string"}
)
_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}  # of the numbers in JSON, by what is expected
_BYTES = "_bytes"  # outputs whose names end so are in base64
_LARGEST = 1 << 30  # bytes of an answer


class UnansweredError(Exception):
    """The server refused a request, or did not answer it."""


class OutOfTimeError(UnansweredError):
    """It did not answer in time."""


class UnavailableError(UnansweredError):
    """It is away, or takes no requests."""


_UNANSWERED = {
    grpc.StatusCode.DEADLINE_EXCEEDED: OutOfTimeError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
}


def open_channel(address: str) -> grpc.Channel:
    """A channel without limits of size and without a proxy."""
    sizes = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
    return grpc.insecure_channel(address, options=[*sizes, ("grpc.enable_http_proxy", 0)])


def request_of(record: Any, model: str, version: int) -> Any:
    """The request in a PredictionLog, to one version of a model."""
    request = type(inner := getattr(record, record.WhichOneof("log_type")).request)()
    request.CopyFrom(inner)
    request.model_spec.name = model
    request.model_spec.version.value = version
    return request


def rows_of(request: Any) -> int:
    """The batch size; 1 for a request without a batch dimension."""
    if not isinstance(request, predict_pb2.PredictRequest):
        return len(request.input.example_list.examples)
    return max((item.tensor_shape.dim[0].size for item in request.inputs.values() if item.tensor_shape.dim), default=1)


class GrpcCalls:
    """PredictionService of a server."""

    def __init__(self, channel: grpc.Channel) -> None:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._calls = {"predict": stub.Predict, "classify": stub.Classify, "regress": stub.Regress}

    def send(self, signature: Signature, request: Any, timeout: float) -> Any:
        """Sends a request and returns the response.

        Raises:
            UnansweredError: If there is none.
        """
        try:
            return self._calls[signature.method](request, timeout=timeout)
        except grpc.RpcError as error:
            kind = _UNANSWERED.get(error.code(), UnansweredError)
            raise kind(f"{error.code().name}: {error.details()}") from None

    @staticmethod
    def arrays(signature: Signature, response: Any) -> Answer:
        """What a response holds, by output name."""
        if signature.method == "predict":
            return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
        if signature.method == "regress":
            values = [item.value for item in response.result.regressions]
            return {tf.saved_model.REGRESS_OUTPUTS: np.array(values, dtype=np.float32)}
        rows = [[(item.label, item.score) for item in row.classes] for row in response.result.classifications]
        return _classified(signature, rows)


class RestCalls:
    """The REST API of a server, over one connection."""

    def __init__(self, url: str, model: str, version: int) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        self._path = f"{parts.path.rstrip('/')}/v1/models/{model}/versions/{version}"

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    @staticmethod
    def obstacle(signature: Signature) -> str:
        """Why a signature cannot be asked over REST; empty where it can."""
        if signature.method != "predict":
            return ""
        strange = {item.dtype for item in (*signature.inputs, *signature.outputs)} - JSON_DTYPES
        return f"the REST API has no JSON for {', '.join(sorted(strange))}" if strange else ""

    def send(self, signature: Signature, request: Any, expected: Answer, timeout: float) -> Answer:
        """Sends a request.

        Args:
            signature: Which is asked.
            request: As gRPC has it.
            expected: Arrays whose dtypes the answer is read as.
            timeout: Seconds.

        Raises:
            UnansweredError: If there is no answer.
            ValueError: If it is of another type.
        """
        answer = self._post(signature.method, _document(signature, request), timeout)
        if signature.method == "predict":
            outputs = answer["outputs"]
            if len(signature.outputs) == 1:
                outputs = {signature.outputs[0].name: outputs}
            return {name: _array(name, value, expected.get(name)) for name, value in outputs.items()}
        results = answer["results"]
        if signature.method == "regress":
            return {tf.saved_model.REGRESS_OUTPUTS: np.array(results, dtype=np.float32)}
        return _classified(signature, results)

    def _post(self, method: str, document: dict[str, Any], timeout: float) -> Any:
        connection = self._connection
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        try:
            body = json.dumps(document).encode()
            connection.request("POST", f"{self._path}:{method}", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read(_LARGEST)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            kind = OutOfTimeError if isinstance(error, TimeoutError) else UnansweredError
            raise kind(f"{type(error).__name__}: {error}") from None
        # What the model calls text need not be any.
        text = data.decode("utf-8", "surrogateescape")
        if response.status != http.client.OK:
            raise UnansweredError(f"status {response.status}: {text[:300]}")
        return json.loads(text)


def _document(signature: Signature, request: Any) -> dict[str, Any]:
    if signature.method == "predict":
        inputs = {name: _json(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
        return {"signature_name": signature.name, "inputs": inputs}
    examples = [_features(example) for example in request.input.example_list.examples]
    return {"signature_name": signature.name, "examples": examples}


def _json(array: Array) -> Any:
    if array.dtype != object:
        return array.tolist()
    encoded = np.empty(array.shape, dtype=object)
    for index, value in np.ndenumerate(array):
        encoded[index] = {"b64": base64.b64encode(value).decode()}
    return encoded.tolist()


def _features(example: tf.train.Example) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for name, feature in example.features.feature.items():
        values = list(getattr(feature, feature.WhichOneof("kind")).value)
        if feature.HasField("bytes_list"):
            values = [{"b64": base64.b64encode(value).decode()} for value in values]
        features[name] = values
    return features


def _array(name: str, value: Any, expected: Array | None) -> Array:
    """An output in JSON, as the dtype that the model answers in.

    Raises:
        ValueError: If it holds another kind of values.
    """
    if expected is None:
        raise ValueError(f"an output {name!r} that the model does not have")
    if expected.dtype == object:
        found = np.array(value, dtype=object)
        read = _from_base64 if name.endswith(_BYTES) else _from_text
        strings = np.empty(found.shape, dtype=object)
        for index, item in np.ndenumerate(found):
            strings[index] = read(item)
        return _shaped(strings, expected)
    found = np.array(value)
    if expected.dtype.kind in "iu" and found.dtype.kind in "iuf" and (whole := whole_numbers(value)) is not None:
        if not holds(expected.dtype, whole):
            raise ValueError(f"output {name!r} holds {whole.min()} to {whole.max()}, expected {expected.dtype}")
        found = whole.astype(expected.dtype)
    if found.size and found.dtype.kind not in _KINDS[expected.dtype.kind]:
        raise ValueError(f"output {name!r} holds {found.dtype}, expected {expected.dtype}")
    return _shaped(found.astype(expected.dtype), expected)


def _shaped(found: Array, expected: Array) -> Array:
    """Nested lists cannot tell the shape of what is empty."""
    return found.reshape(expected.shape) if found.size == expected.size == 0 else found


def _from_base64(value: Mapping[str, str]) -> bytes:
    return base64.b64decode(value["b64"])


def _from_text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _classified(signature: Signature, rows: list[Any]) -> Answer:
    outputs = {item.name for item in signature.outputs}
    labels, scores = tf.saved_model.CLASSIFY_OUTPUT_CLASSES, tf.saved_model.CLASSIFY_OUTPUT_SCORES
    answer: Answer = {}
    if scores in outputs:
        answer[scores] = np.array([[score for _, score in row] for row in rows], dtype=np.float32)
    if labels in outputs:
        answer[labels] = np.array([[_from_text(label) for label, _ in row] for row in rows], dtype=object)
    return answer
