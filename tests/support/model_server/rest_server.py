"""The REST door: status, metadata, predictions and metrics over HTTP/1.1."""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2

from tests.support.model_server import requests, rest_json
from tests.support.model_server.errors import ServingError
from tests.support.model_server.metrics import Metrics
from tests.support.model_server.server_core import ServerCore
from tests.support.model_server.tensors import to_array, to_proto

_VERSION_OR_LABEL = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_MODEL = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION_OR_LABEL}(?P<metadata>/metadata)?", re.IGNORECASE)
_CALL = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION_OR_LABEL}:(?P<call>predict)", re.IGNORECASE)
_IDLE_SECONDS = 60


class RestServer:
    """Answers on an address until it is stopped.

    Args:
        core: What is served.
        metrics: Where requests are counted.
        address: Host and port.
        metrics_path: Where they are told; empty for nowhere.

    Raises:
        OSError: If the address is taken.
    """

    def __init__(self, core: ServerCore, metrics: Metrics, address: tuple[str, int], metrics_path: str) -> None:
        class Handler(_Handler):
            pass

        Handler.core, Handler.metrics, Handler.metrics_path = core, metrics, metrics_path
        self._server = _Server(address, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="rest", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    core: ServerCore
    metrics: Metrics
    metrics_path: str
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    # An answer is one write of headers and one of the body; the second must not wait for an acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.metrics_path and self.path == self.metrics_path:
            self._send(200, self.metrics.render().encode(), "text/plain")
        elif not self.path.lower().startswith("/v1/"):
            self._send(404, b"", "text/html")
        else:
            self._answer(self._look)

    def do_POST(self) -> None:
        self._answer(self._call)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the real server logs no request either."""

    def _answer(self, answer: Any) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            document, code = answer(body), 200
        except ServingError as error:
            document, code = json.dumps({"error": error.message}), error.http_status
        self._send(code, document.encode(), "application/json")

    def _send(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _look(self, _: bytes) -> str:
        found = _MODEL.fullmatch(self.path)
        if not found:
            raise self._malformed()
        spec = _spec(found)
        if not found["metadata"]:
            return _printed(requests.status(self.core, spec))
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        return _printed(requests.metadata(self.core, request))

    def _call(self, body: bytes) -> str:
        found = _CALL.fullmatch(self.path)
        if not found:
            raise self._malformed()
        begun, status = time.monotonic(), "OK"
        try:
            return json.dumps(self._predict(_spec(found), body))
        except ServingError as error:
            status = error.code
            raise
        finally:
            micros = int((time.monotonic() - begun) * 1e6)
            self.metrics.record(found["name"], status, "predict", "REST", micros)

    def _predict(self, spec: Any, body: bytes) -> dict[str, Any]:
        name, form, value = rest_json.read_request(body)
        with self.core.servable(spec) as (_, servable):
            signatures = servable.signatures  # type: ignore[attr-defined]
            if name not in signatures:
                message = f'Serving signature name: "{name}" not found in signature def'
                raise ServingError("INVALID_ARGUMENT", message)
            arrays = rest_json.to_arrays(form, value, signatures[name].inputs)
        request = predict_pb2.PredictRequest(model_spec=spec)
        request.model_spec.signature_name = name
        for alias, array in arrays.items():
            request.inputs[alias].CopyFrom(to_proto(array))
        response = requests.predict(self.core, request)
        return rest_json.to_answer(form, {alias: to_array(alias, found) for alias, found in response.outputs.items()})

    def _malformed(self) -> ServingError:
        return ServingError("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")


def _spec(found: re.Match[str]) -> Any:
    spec = model_pb2.ModelSpec(name=found["name"])
    if found["version"]:
        spec.version.value = int(found["version"])
    elif found["label"]:
        spec.version_label = found["label"]
    return spec


def _printed(message: Any) -> str:
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, including_default_value_fields=True, indent=1
    )
