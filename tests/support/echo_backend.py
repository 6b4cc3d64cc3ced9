"""A server over REST and gRPC that does what a request's body says: for what a model server does rarely.

Over REST it answers with the version it was given, the path it was asked for and how long the body was; over gRPC with
the version. What bodies may begin with:

    refuse     400 and INVALID_ARGUMENT
    fail       500 and INTERNAL
    hang       no answer until the server is closed
    break      the connection is closed without an answer (REST)
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

from model_registry.serving.fleet import Server

_STATUS = {b"refuse": 400, b"fail": 500}
_CODES = {b"refuse": grpc.StatusCode.INVALID_ARGUMENT, b"fail": grpc.StatusCode.INTERNAL}


def _told(body: bytes) -> bytes:
    return next((word for word in (b"refuse", b"fail", b"hang", b"break") if body.startswith(word)), b"")


class _Rest(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, version: int, done: threading.Event) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.version, self.done = version, done

    def handle_error(self, *_: Any) -> None:
        """Whoever hung up meanwhile is nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Rest

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        told = _told(body)
        if told == b"hang":
            self.server.done.wait()
        if told in (b"hang", b"break"):
            self.close_connection = True
            return
        document = {"version": self.server.version, "path": self.path, "length": len(body)}
        content = json.dumps(document).encode()
        self.send_response(_STATUS.get(told, 200))
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, version: int, done: threading.Event) -> None:
        self._version, self._done = version, done

    def service(self, _: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        told = _told(body)
        if told in _CODES:
            context.abort(_CODES[told], told.decode())
        if told == b"hang":
            self._done.wait()
        return str(self._version).encode()


@contextmanager
def echo_backend(version: int) -> Iterator[Server]:
    """Runs one, and tells where, as fleet.yaml does."""
    done = threading.Event()
    rest = _Rest(version, done)
    thread = threading.Thread(target=rest.serve_forever, kwargs={"poll_interval": 0.05})
    with ThreadPoolExecutor(16) as pool:
        calls = grpc.server(pool, options=[("grpc.max_receive_message_length", -1)])
        calls.add_generic_rpc_handlers((_Calls(version, done),))
        port = calls.add_insecure_port("127.0.0.1:0")
        calls.start()
        thread.start()
        try:
            yield Server(host="127.0.0.1", grpc=port, rest=rest.server_address[1])
        finally:
            done.set()
            rest.shutdown()
            thread.join()
            rest.server_close()
            calls.stop(None).wait()
