"""A TCP proxy that can lose the answer to a write: the server did it, the client never hears."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class DroppingProxy:
    """Forwards every connection to one server.

    Attributes:
        endpoint: The proxy's URL.
        dropped: How many answers were lost so far.
    """

    def __init__(self, listener: socket.socket, upstream: tuple[str, int]) -> None:
        self._listener = listener
        self._upstream = upstream
        self._to_drop = 0
        self.dropped = 0
        self.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def drop_answers(self, count: int) -> None:
        """Loses the answers to the next successful PUTs."""
        self._to_drop = count

    def serve(self) -> None:
        """Accepts connections until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as server:
            writing = threading.Event()
            upwards = threading.Thread(target=_pump_requests, args=(client, server, writing), daemon=True)
            upwards.start()
            with suppress(OSError):
                while data := server.recv(1 << 16):
                    if writing.is_set() and self._to_drop and b" 200 " in data.split(b"\r\n\r\n")[-2:][0]:
                        self._to_drop -= 1
                        self.dropped += 1
                        break
                    client.sendall(data)
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            upwards.join(5)


def _pump_requests(client: socket.socket, server: socket.socket, writing: threading.Event) -> None:
    with suppress(OSError):
        while data := client.recv(1 << 16):
            if data.startswith(b"PUT "):
                writing.set()
            elif data.split(b" ", 1)[0] in (b"GET", b"HEAD", b"POST", b"DELETE"):
                writing.clear()
            server.sendall(data)


@contextmanager
def run_dropping_proxy(endpoint: str) -> Iterator[DroppingProxy]:
    """Starts a proxy in front of an endpoint and ends it."""
    url = urlsplit(endpoint)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = DroppingProxy(listener, (url.hostname or "127.0.0.1", url.port or 80))
        thread = threading.Thread(target=proxy.serve, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(5)
