"""An agent over HTTP: what probes, Prometheus, `promote --wait` and its `--retry` ask it.

GET  /healthz   200 as long as the agent does its work, else 503; a line says why
GET  /readyz    200 while its server is fit for requests, as it was before, else 503; lines say why
GET  /status    its report as JSON
GET  /metrics   for Prometheus
POST /retry     {"model": "digits", "version": 3}: a version that failed may be tried again, where the agent loads any

Whoever can connect may ask, and a retry does nothing that the registry does not want; so there is no password. A
browser on the same machine can connect too, on behalf of any page it shows. So a request that names an Origin changes
nothing, and a server on a loopback address answers only to a loopback name: another one was pointed there (DNS
rebinding). A connection carries one request, within a few seconds and a few kilobytes, and there are a few at once.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from functools import partial
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Any, TypeVar

from model_registry.errors import InvalidInputError
from model_registry.serving.agent_answers import ObservedAgent, RenderedMetrics, Report, answers_of
from model_registry.serving.agent_requests import AgentRequestHandler

_Report = TypeVar("_Report", bound=Report)

_CONNECTIONS = 32
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_LISTEN = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")

logger = logging.getLogger("slipway")


class AgentServer:
    """Answers for one agent, in threads of its own, between `start` and `stop`; a context manager does both."""

    def __init__(
        self, listen: tuple[str, int], agent: ObservedAgent[_Report], metrics: RenderedMetrics[_Report]
    ) -> None:
        """Touches no network.

        Args:
            listen: Host and port, as `parse_listen` reads them; port 0 takes a free one.
            agent: Who is asked; /retry is there where it can.
            metrics: What /metrics tells.
        """
        self._listen = listen
        self._answers = answers_of(agent, metrics)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: the address and the port, both as they were found; what was asked for before `start`."""
        if self._server is None:
            return self._listen
        host, port = self._server.server_address[:2]
        return str(host), port

    @property
    def url(self) -> str:
        """The same, as one asks it."""
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Begins to answer.

        Raises:
            InvalidInputError: If nothing can listen there, such as where another process does.
        """
        host, port = self._listen
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            # `localhost` is both in most places; those who ask for it try IPv4 sooner or later, and not always IPv6.
            family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
            loopback = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
            handler = partial(AgentRequestHandler, answers=self._answers, only_host=host if loopback else None)
            self._server = _Server(family, address, handler)
        except OSError as error:
            raise InvalidInputError(
                f"{host}:{port} cannot be listened on: {error.strerror or error}",
                hint="another agent may; choose another port with --listen HOST:PORT, port 0 for a free one",
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="agent-server", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends it, within a moment; may be called twice, and before `start`."""
        if self._server and self._thread:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._thread = None

    def __enter__(self) -> AgentServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def parse_listen(text: str) -> tuple[str, int]:
    """Reads where to listen.

    Args:
        text: `HOST:PORT`, with an IPv6 address in brackets: `127.0.0.1:8502`, `[::1]:8502`, `0.0.0.0:8502`.

    Raises:
        InvalidInputError: If it is nothing of the kind.
    """
    found = _LISTEN.fullmatch(text)
    if not found or int(found["port"]) > 65535:
        raise InvalidInputError(
            f"{text[:100]!r} is no address to listen on: expected HOST:PORT, such as 127.0.0.1:8502 or [::1]:8502",
            hint="0.0.0.0:8502 listens on every address of this machine",
        )
    return found["v6"] or found["host"], int(found["port"])


class _Server(ThreadingHTTPServer):
    """Sockets and threads: a bounded number of them, and none that holds up the end of the process."""

    request_queue_size = 2 * _CONNECTIONS  # five by default: whoever comes as a sixth would wait for a second

    def __init__(self, family: socket.AddressFamily, address: Any, handler: Callable[..., AgentRequestHandler]) -> None:
        self.address_family = family
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without the look-up of this machine's name that HTTPServer makes, which can take seconds."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a connection, or turns it away."""
        if not self._free.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.settimeout(0)
                request.send(_BUSY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """What the thread does."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is its caller's affair, and no traceback for the log."""
        logger.debug("a connection to the agent broke: %r", sys.exc_info()[1])
