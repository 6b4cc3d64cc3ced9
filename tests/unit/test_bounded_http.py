"""Questions to those who answer slowly, too much, or not at all."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from model_registry.serving.bounded_http import Answer, BoundedHttp, TooLargeError
from tests.support.certificates import Authority
from tests.support.dripping import dripper

pytestmark = pytest.mark.timeout(60)  # what has no deadline would wait for ever

OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = [
    pytest.param(b"", b"H", id="status line"),
    pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="interim answers"),
    pytest.param(OK, b"X-A: ", id="a header"),
    pytest.param(OK, b"X-A: y\r\n", id="headers"),
    pytest.param(OK + b"Content-Length: 100000\r\n\r\n", b" ", id="body of a known length"),
    pytest.param(OK + b"\r\n", b" ", id="body without a length"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", id="chunks"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: y\r\n", id="trailers"),
]


def asker(timeout: float = 0.5, limit: int = 1 << 20, *, proxied: bool = False) -> BoundedHttp:
    return BoundedHttp(timeout=timeout, limit=limit, proxied=proxied)


@contextmanager
def answering(*says: bytes, address: str = "127.0.0.1") -> Iterator[int]:
    """Says it to one caller, and ends; gives the port."""

    def serve() -> None:
        connection, _ = listening.accept()
        with closing(connection):
            connection.recv(65536)
            for part in says:
                connection.sendall(part)

    with closing(socket.create_server((address, 0))) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side of TLS, which this process trusts under `localhost`."""
    authority = Authority()
    signed = authority.sign("localhost")
    for name, content in (("ca", authority.certificate), ("server", signed.certificate + signed.key)):
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server")
    return context


@pytest.mark.parametrize(("opening", "piece"), ENDLESS)
def test_an_answer_that_drips_is_left_at_the_deadline(opening: bytes, piece: bytes) -> None:
    with dripper(opening, piece) as server:
        with pytest.raises(TimeoutError, match=r"^no whole answer within 0.5 s$"):
            asker().ask(server.url)
        server.assert_left()


def test_over_ipv6_too() -> None:
    with dripper(OK, b"X-A: ", address="::1") as server:
        with pytest.raises(TimeoutError):
            asker().ask(server.url)
        server.assert_left()


def test_over_tls_too(certified: ssl.SSLContext) -> None:
    with dripper(OK, b"X-A: ", tls=certified) as server:
        with pytest.raises(TimeoutError):
            asker(1.0).ask(f"https://localhost:{server.port}")
        server.assert_left()


def test_a_tls_handshake_that_drips_is_left_too() -> None:
    handshake = b"\x16\x03\x03\x40\x00"  # a record of 16 KiB
    with dripper(handshake, b"\x00") as server:
        with pytest.raises(TimeoutError):
            asker().ask(f"https://127.0.0.1:{server.port}")
        server.assert_left()


def test_a_proxy_whose_tunnel_drips_is_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with dripper(OK, b"X-A: y\r\n") as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(TimeoutError):
            asker(proxied=True).ask("https://serving-7.example")
        proxy.assert_left()


def test_who_never_takes_the_connection_is_left() -> None:
    with full() as port, pytest.raises(TimeoutError, match="no whole answer"):
        asker().ask(f"http://127.0.0.1:{port}")


def test_a_dead_address_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with full() as dead, answering(OK, b"Content-Length: 2\r\n\r\nok") as alive:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in (dead, alive)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

        assert asker(4.0).ask("http://serving-7.example") == Answer(200, "OK", b"ok")


@contextmanager
def full() -> Iterator[int]:
    """A port whose queue of connections has no room; nobody accepts them."""
    with ExitStack() as stack:
        listening = stack.enter_context(closing(socket.socket()))
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(closing(socket.socket()))
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


def test_tls_answers(certified: ssl.SSLContext) -> None:
    with dripper(OK + b"Content-Length: 2\r\n\r\nok", b" ", tls=certified) as server:
        assert asker(20).ask(f"https://localhost:{server.port}/v1").body == b"ok"
        server.assert_left()


def test_an_answer_of_known_length_ends_before_the_connection_does() -> None:
    with dripper(OK + b"Content-Length: 2\r\n\r\nok", b" ") as server:
        assert asker(20).ask(server.url) == Answer(200, "OK", b"ok")


@pytest.mark.parametrize(
    "says",
    [
        OK + b"Content-Length: 999999999999999\r\n\r\n" + b" " * 2_000_000,
        OK + b"\r\n" + b" " * 2_000_000,
        OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n" + b" " * 2_000_000,
        OK + b"".join(b"X: %s\r\n" % (b"y" * 30_000) for _ in range(60)),
        b"HTTP/1.1 100 Continue\r\n\r\n" * 80_000,
    ],
    ids=["claimed length", "no length", "chunk", "headers", "interim answers"],
)
def test_an_answer_that_is_too_long_is_not_taken(says: bytes) -> None:
    with dripper(says, b" ") as server:
        with pytest.raises(TooLargeError):
            asker(20).ask(server.url)
        server.assert_left()


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (b"\x00\x00\x12\x04\x00\r\n", "no HTTP: BadStatusLine"),
        (OK + b"Content-Length: 10\r\n\r\nhalf", r"no HTTP: IncompleteRead\(4 bytes read, 6 more expected\)"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\na\r\nhalf", "no HTTP: IncompleteRead"),
        (OK + b"X: y\r\n" * 101 + b"\r\n", "no HTTP: .*more than 100 headers"),
    ],
)
def test_what_is_no_http_is_told(says: bytes, expected: str) -> None:
    with answering(says) as port, pytest.raises(OSError, match=expected) as caught:
        asker(20).ask(f"http://127.0.0.1:{port}")
    assert not isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
def test_a_host_that_no_resolver_takes_is_an_error_like_others(host: str) -> None:
    with pytest.raises(OSError, match="label"):
        asker().ask(f"http://{host}:1")


def test_nobody_there_and_nobody_who_answers_are_cut_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            asker(20).ask(f"http://127.0.0.1:{unused.getsockname()[1]}")
    with answering() as port, pytest.raises(ConnectionResetError):
        asker(20).ask(f"http://127.0.0.1:{port}")


def test_a_redirection_is_told_and_a_post_is_json() -> None:
    asked: list[Any] = []

    def serve() -> None:
        connection, _ = listening.accept()
        with closing(connection):
            asked.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        answer = asker(20).ask(f"http://127.0.0.1:{listening.getsockname()[1]}/a/b", b"{}")
        thread.join()

    assert answer == Answer(302, "Found", b"")
    lines = asked[0].split(b"\r\n")
    assert lines[0] == b"POST /a/b HTTP/1.1"
    assert {b"Content-Type: application/json", b"User-Agent: slipway", b"Connection: close"} <= set(map(bytes, lines))
