"""An HTTP proxy in front of an S3 server, that fails as networks and servers do: when told to, as often as told.

It forwards the client's Host header as it is, since the signature of a request covers it.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True)
class Request:
    """What the client asked."""

    method: str
    target: str  # path and query
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What the server said, or is said in its place."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    promised: int | None = None  # the Content-Length, where it is not the body's


Ask = Callable[[Request], Answer]
# Stands between client and server; None cuts the connection.
Fault = Callable[[Request, Ask], Answer | None]


def cut_before(request: Request, ask: Ask) -> None:
    """The server never sees the request."""


def lose_answer(request: Request, ask: Ask) -> None:
    """The server did it, and the client never hears."""
    answer = ask(request)
    assert answer.status < 300, answer


def answer_error(status: int, code: str) -> Fault:
    """The server refuses, and does nothing."""
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>injected</Message></Error>'
    return lambda request, ask: Answer(status, (("Content-Type", "application/xml"),), body.encode())


def answer_page(request: Request, ask: Ask) -> Answer:
    """Something in between has a page for whoever asks anything."""
    return Answer(200, (("Content-Type", "text/html"),), b"<html><body>Please log in<br></body></html>")


def answer_well_formed_page(request: Request, ask: Ask) -> Answer:
    """The same, which a parser takes for XML."""
    return Answer(200, (("Content-Type", "text/html"),), b"<html><body>Please log in</body></html>")


def stall(seconds: float) -> Fault:
    """The server takes its time."""

    def slowly(request: Request, ask: Ask) -> Answer:
        time.sleep(seconds)
        return ask(request)

    return slowly


def truncate_answer(request: Request, ask: Ask) -> Answer:
    """The connection breaks in the middle of a body."""
    answer = ask(request)
    return Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2], promised=len(answer.body))


def flip_answer(request: Request, ask: Ask) -> Answer:
    """A bit of what the server sends turns over."""
    answer = ask(request)
    return Answer(answer.status, answer.headers, _flipped(answer.body))


def flip_request(request: Request, ask: Ask) -> Answer:
    """A bit of what the client sends turns over."""
    return ask(Request(request.method, request.target, request.headers, _flipped(request.body)))


def _flipped(data: bytes) -> bytes:
    assert data, "no bit to turn over: choose another request"
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@dataclass
class _Injection:
    fault: Fault
    when: Callable[[str, str], bool]
    left: int
    then: Callable[[], object]


@dataclass
class FaultProxy:
    """Forwards every request to one server.

    Attributes:
        endpoint: The proxy's URL.
        failed: The requests that met a fault so far, as `METHOD target`.
        crashed: What went wrong in the proxy itself.
    """

    endpoint: str
    failed: list[str] = field(default_factory=list)
    crashed: list[BaseException] = field(default_factory=list)
    _injections: list[_Injection] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def inject(
        self,
        fault: Fault,
        when: Callable[[str, str], bool] = lambda method, target: True,
        *,
        times: int = 1,
        then: Callable[[], object] = lambda: None,
    ) -> None:
        """Lets requests fail from now on.

        Args:
            fault: What happens to them.
            when: Which, by method and path with query.
            times: How many.
            then: Called after each fault, before the client notices.
        """
        with self._lock:
            self._injections.append(_Injection(fault, when, times, then))

    def meet(self, method: str, target: str) -> _Injection | None:
        """Takes the fault that the next request meets, if any."""
        with self._lock:
            for injection in self._injections:
                if injection.left and injection.when(method, target):
                    injection.left -= 1
                    self.failed.append(f"{method} {target}")
                    return injection
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[FaultProxy]
    upstream: ClassVar[tuple[str, int]]

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that gave up
            super().handle()

    def log_message(self, format: str, *arguments: object) -> None:
        """The tests have their own words for what failed."""

    def _serve(self) -> None:
        try:
            self._pass_on()
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - told at the end
            self.proxy.crashed.append(error)
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _pass_on(self) -> None:
        assert "chunked" not in self.headers.get("Transfer-Encoding", ""), "over plain HTTP boto3 sends none"
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # a client that gave up, as with the other parts of a file when one has failed
            self.close_connection = True
            return
        request = Request(self.command, self.path, tuple(self.headers.items()), body)
        injection = self.proxy.meet(self.command, self.path)
        if injection is None:
            answer: Answer | None = self._ask(request)
        else:
            answer = injection.fault(request, self._ask)
            injection.then()
        if answer is None:
            self.close_connection = True
            return
        self._answer(answer)

    def _ask(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(*self.upstream, timeout=120)
        try:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers:
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(request.body)))
            connection.endheaders(request.body)
            found = connection.getresponse()
            body = found.read()
            promised = int(found.headers.get("Content-Length", len(body)))
            return Answer(found.status, tuple(found.headers.items()), body, promised)
        finally:
            connection.close()

    def _answer(self, answer: Answer) -> None:
        promised = len(answer.body) if answer.promised is None else answer.promised
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
            self.close_connection = self.close_connection or promised != len(answer.body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def run_fault_proxy(endpoint: str) -> Iterator[FaultProxy]:
    """Starts a proxy in front of an endpoint and ends it; fails if it went wrong by itself."""
    url = urlsplit(endpoint)
    handler = type("_BoundHandler", (_Handler,), {"upstream": (url.hostname, url.port)})
    with _Server(("127.0.0.1", 0), handler) as server:
        proxy = handler.proxy = FaultProxy(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
    if proxy.crashed:
        raise proxy.crashed[0]
