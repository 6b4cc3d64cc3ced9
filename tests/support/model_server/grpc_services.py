"""PredictionService and ModelService over gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc, prediction_service_pb2_grpc

from tests.support.model_server import requests
from tests.support.model_server.errors import ServingError
from tests.support.model_server.metrics import Metrics
from tests.support.model_server.server_core import ServerCore
from tests.support.model_server.server_log import log

_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 2**31 - 1),
    ("grpc.max_send_message_length", 2**31 - 1),
]
_THREADS = 16


def serve(core: ServerCore, metrics: Metrics, address: str) -> grpc.Server:
    """Begins to answer.

    Raises:
        RuntimeError: If the address is taken.
    """
    server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc"), options=_OPTIONS)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_PredictionService(core, metrics), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(core), server)
    server.add_insecure_port(address)
    server.start()
    return server


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, core: ServerCore, metrics: Metrics) -> None:
        self._core = core
        self._metrics = metrics

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the service's own name
        return self._measured("Predict", requests.predict, request, context)

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._measured("Classify", requests.classify, request, context)

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._measured("Regress", requests.regress, request, context)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return _answer(requests.metadata, self._core, request, context)

    def _measured(self, api: str, call: Callable[..., Any], request: Any, context: grpc.ServicerContext) -> Any:
        begun, status = time.monotonic(), "OK"
        try:
            return call(self._core, request)
        except ServingError as error:
            status = error.code
            context.abort(error.grpc_code, error.message)
        finally:
            micros = int((time.monotonic() - begun) * 1e6)
            self._metrics.record(request.model_spec.name, status, api, "GRPC", micros)


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, core: ServerCore) -> None:
        self._core = core

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return _answer(requests.status, self._core, request.model_spec, context)

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        try:
            if not request.config.HasField("model_config_list"):
                message = "ServerModelConfig type not supported by HandleReloadConfigRequest."
                raise ServingError("INVALID_ARGUMENT", message)
            self._core.reload(request.config)
        except ServingError as error:
            log("E", "model_servers/model_service_impl.cc", f"ReloadConfig failed: {error.message}")
            context.abort(error.grpc_code, error.message)
        return model_management_pb2.ReloadConfigResponse()


def _answer(call: Callable[..., Any], core: ServerCore, request: Any, context: grpc.ServicerContext) -> Any:
    try:
        return call(core, request)
    except ServingError as error:
        context.abort(error.grpc_code, error.message)
