"""A gRPC server that says what a test tells it to: for what a model server does rarely, and for TLS.

It speaks real gRPC, with the messages that the client brings along; tests/integration/test_client_messages.py holds
those against TensorFlow's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc

from model_registry.serving.client_messages import message_class
from model_registry.serving.client_tensors import DTYPES

_METHODS = {
    "Predict": ("PredictRequest", "PredictResponse"),
    "Classify": ("ClassificationRequest", "ClassificationResponse"),
    "Regress": ("RegressionRequest", "RegressionResponse"),
    "GetModelMetadata": ("GetModelMetadataRequest", "GetModelMetadataResponse"),
}
Refusal = tuple[grpc.StatusCode, str]


@dataclass
class Service:
    """One model under every name and label.

    Attributes:
        version: The version that answers.
        input: Its input's name; float32 [null].
        refusals: What the next calls to Predict are refused with, in turn.
        calls: The names of the calls so far.
        metadata_of: What each of them said last in `slipway-model`.
        before_answer: Called in each Predict before anything else.
        output: Bytes of the answer, `scores`, a string.
        too_much: Whether the answer has more values than its shape says.
    """

    version: int = 1
    input: str = "x"
    refusals: list[Refusal] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    metadata_of: dict[str, str] = field(default_factory=dict)
    before_answer: Callable[[], None] = lambda: None
    output: bytes = b"ok"
    too_much: bool = False

    def predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.before_answer()
        if self.refusals:
            context.abort(*self.refusals.pop(0))
        if set(request.inputs) != {self.input}:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"input to be fed: {self.input}")
        response = message_class("PredictResponse")()
        response.model_spec.version.value = self.version
        tensor = response.outputs["scores"]
        tensor.dtype = DTYPES["string"]
        tensor.tensor_shape.SetInParent()
        tensor.string_val.extend([self.output] * (2 if self.too_much else 1))
        return response

    def metadata(self, _: Any, __: grpc.ServicerContext) -> Any:
        definitions = message_class("SignatureDefMap")()
        signature = definitions.signature_def["serving_default"]
        signature.method_name = "tensorflow/serving/predict"
        signature.inputs[self.input].dtype = DTYPES["float32"]
        signature.inputs[self.input].tensor_shape.dim.add(size=-1)
        response = message_class("GetModelMetadataResponse")()
        response.model_spec.version.value = self.version
        response.metadata["signature_def"].value = definitions.SerializeToString()
        return response

    def handler(self, name: str) -> Any:
        """How gRPC is told of one method."""
        request, response = _METHODS[name]
        answer = self.metadata if name == "GetModelMetadata" else self.predict

        def counted(message: Any, context: grpc.ServicerContext) -> Any:
            self.calls.append(name)
            self.metadata_of[name] = str(dict(context.invocation_metadata()).get("slipway-model"))
            return answer(message, context)

        return grpc.unary_unary_rpc_method_handler(
            counted, message_class(request).FromString, message_class(response).SerializeToString
        )


@contextlib.contextmanager
def serving(
    service: Service, *, credentials: grpc.ServerCredentials | None = None, options: list[tuple[str, Any]] | None = None
) -> Iterator[int]:
    """Runs a server, and tells its port."""
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, options=[("grpc.max_receive_message_length", -1), *(options or [])])
        handlers = {name: service.handler(name) for name in _METHODS}
        name = "tensorflow.serving.PredictionService"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        address = "127.0.0.1:0"
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait()
