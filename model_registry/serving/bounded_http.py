"""HTTP with those who may be slow or hostile: one deadline and one size for a whole message, however it drips in.

The timeout of a socket begins anew with every byte that comes, so whoever sends one now and then holds a reader for
ever: in a TLS handshake, a status line, the headers or the body. Here each wait gets what is left of one deadline.
Only the resolver of names keeps limits of its own.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.error import URLError

_CHUNK = 1 << 16


class TooLargeError(Exception):
    """More came than a message has."""


class BoundedReader(io.RawIOBase):
    """What comes over a connection, up to a time and a size. Keeps the connection open until it is closed itself."""

    def __init__(self, connection: socket.socket, *, deadline: float, limit: int) -> None:
        """Reads nothing yet.

        Args:
            connection: Plain or TLS.
            deadline: When `time.monotonic` says so, reading ends with TimeoutError.
            limit: Bytes; to read on after them ends with TooLargeError.
        """
        self._connection = connection
        self._raw = connection.makefile("rb", buffering=0)
        self._deadline = deadline
        self._left = limit

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What came, as soon as anything did; 0 at the end.

        Raises:
            TimeoutError: At the deadline.
            TooLargeError: After the limit.
        """
        if self._left <= 0:
            raise TooLargeError
        self._connection.settimeout(_until(self._deadline))
        count = self._raw.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= count
        return count

    def close(self) -> None:
        """Lets the connection go."""
        self._raw.close()
        super().close()


@dataclass(frozen=True)
class Answer:
    """One that came whole.

    Attributes:
        status: Its code; a redirection is told, never followed.
        reason: The words beside it.
        body: Complete.
    """

    status: int
    reason: str
    body: bytes


class BoundedHttp:
    """Asks over http and https; each question makes a connection of its own. Thread-safe."""

    def __init__(self, *, timeout: float, limit: int, proxied: bool) -> None:
        """Touches no network.

        Args:
            timeout: Seconds from the first attempt to connect to the last byte of an answer.
            limit: Bytes of a whole answer.
            proxied: Whether to go through a proxy where HTTP_PROXY, HTTPS_PROXY and NO_PROXY say so.
        """
        self._timeout = timeout
        self._opener = urllib.request.OpenerDirector()  # bare: knows no file, no redirection and no password
        self._opener.addheaders = [("User-Agent", "slipway")]
        for handler in (urllib.request.ProxyHandler(None if proxied else {}), _Http(limit), _Https(limit)):
            self._opener.add_handler(handler)

    def ask(self, url: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None) -> Answer:
        """GETs, or POSTs a JSON document.

        Args:
            url: Checked to be http or https.
            body: The document.
            headers: More of them, or others than `Accept` and `Content-Type` of JSON.

        Raises:
            ConnectionError: If nobody listens, or the connection was cut.
            TimeoutError: If the answer is not whole in time.
            TooLargeError: If it is too long.
            OSError: If it is no HTTP, or anything else is wrong.
        """
        kinds = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body is not None else {})
        sent = {**kinds, **(headers or {})}
        request = urllib.request.Request(url, data=body, headers=sent)  # noqa: S310 - nothing else is handled
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return Answer(response.status, response.reason, _whole(response))
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            cause = error.reason if isinstance(error, URLError) else error
            if isinstance(cause, TimeoutError):
                raise TimeoutError(f"no whole answer within {self._timeout:g} s") from None
            if isinstance(cause, OSError):
                raise cause from None
            raise OSError(f"no HTTP: {cause!r}") from None


def words(error: OSError) -> str:
    """What an error of `BoundedHttp.ask` says to a person."""
    return error.strerror or str(error) or type(error).__name__


def _until(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _whole(response: http.client.HTTPResponse) -> bytes:
    # In parts, since it takes memory for as much as it is asked for, and the length is only claimed.
    body = b"".join(iter(partial(response.read, _CHUNK), b""))
    if response.length:
        raise http.client.IncompleteRead(body, response.length)
    return body


class _Response(http.client.HTTPResponse):
    def __init__(self, connection: socket.socket, *arguments: Any, deadline: float, limit: int, **more: Any) -> None:
        super().__init__(connection, *arguments, **more)
        self.fp.close()
        self.fp = io.BufferedReader(BoundedReader(connection, deadline=deadline, limit=limit))


class _HttpConnection(http.client.HTTPConnection):
    def __init__(self, host: str, *, timeout: float, limit: int) -> None:
        super().__init__(host, timeout=timeout)
        self._deadline = time.monotonic() + timeout
        self._create_connection = self._connected  # called by http.client, before a tunnel and before TLS
        # Reads what a proxy says of a tunnel, too.
        self.response_class = partial(_Response, deadline=self._deadline, limit=limit)  # type: ignore[assignment]

    def _connected(self, address: tuple[str, int], *_: Any) -> socket.socket:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        for left, (family, kind, protocol, _name, where) in zip(range(len(found), 0, -1), found, strict=True):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(_until(self._deadline) / left)  # a dead address leaves time for the others
                connection.connect(where)
                connection.settimeout(_until(self._deadline))  # which a TLS handshake takes as its own deadline
            except OSError:
                connection.close()
                if left == 1:
                    raise
            else:
                return connection
        raise OSError("its name has no address")


class _HttpsConnection(_HttpConnection, http.client.HTTPSConnection):
    pass


class _Http(urllib.request.HTTPHandler):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_HttpConnection, limit=self._limit), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_HttpsConnection, limit=self._limit), req)
