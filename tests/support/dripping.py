"""Something that answers a byte at a time and never ends, as a hostile server does, or a broken one."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PACE = 0.05  # seconds between two pieces: far below any timeout of a caller
_WITHIN = 30.0


class Dripper:
    """Says its opening to whoever connects, and then a piece again and again, until the caller leaves.

    Attributes:
        port: On the address it was told.
    """

    def __init__(self, opening: bytes, piece: bytes, *, address: str, tls: ssl.SSLContext | None) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listening = socket.create_server((address, 0), family=family, backlog=64)
        self.port: int = self._listening.getsockname()[1]
        self._host = f"[{address}]" if ":" in address else address
        self._scheme = "https" if tls else "http"
        self._opening, self._piece, self._tls = opening, piece, tls
        self._over = threading.Event()
        self._left = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"{self._scheme}://{self._host}:{self.port}"

    def assert_left(self, callers: int = 1) -> None:
        """Waits until some callers ended their connections."""
        for _ in range(callers):
            assert self._left.acquire(timeout=_WITHIN), "a caller stays on the line"

    def end(self) -> None:
        """Leaves whoever is there."""
        self._over.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                thread = threading.Thread(target=self._drip, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _drip(self, connection: socket.socket) -> None:
        connection.settimeout(_WITHIN)
        try:
            with self._tls.wrap_socket(connection, server_side=True) if self._tls else connection as said:
                said.recv(65536)
                said.sendall(self._opening)
                while not self._over.wait(_PACE):
                    said.sendall(self._piece)
        except OSError:
            self._left.release()
        finally:
            connection.close()


@contextmanager
def dripper(
    opening: bytes, piece: bytes, *, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Iterator[Dripper]:
    """One that drips for a while.

    Args:
        opening: What it says at once.
        piece: What it says then, for ever.
        address: Of loopback.
        tls: Speaks this.
    """
    found = Dripper(opening, piece, address=address, tls=tls)
    try:
        yield found
    finally:
        found.end()
