"""What a server says over REST, and what others say who are no server."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from model_registry.errors import InvalidInputError, StorageError
from model_registry.serving.server_status import ServerStatus, is_refused
from model_registry.serving.version_status import VersionStatus
from tests.support.dripping import dripper

Answer = tuple[int, bytes]


class Scripted(ThreadingHTTPServer):
    """Says what a test lets it say, and notes what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.says: Answer = (200, b"{}")
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, body = self.server.says
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://169.254.169.254/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Scripted]:
    found = Scripted()
    thread = threading.Thread(target=found.serve_forever, args=(0.02,))
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def test_every_version_is_told_with_its_error(server: Scripted) -> None:
    listed = [
        {"version": "3", "state": "END", "status": {"error_code": "INVALID_ARGUMENT", "error_message": "no graph"}},
        {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
        {"version": "4", "state": "END", "status": {"error_code": "UNKNOWN", "error_message": ""}},
        {"version": "5", "state": "DREAMING", "status": {}},
    ]
    server.says = 200, json.dumps({"model_version_status": listed}).encode()

    assert ServerStatus(server.url).versions("digits") == (
        VersionStatus(2, "AVAILABLE"),
        VersionStatus(3, "END", "no graph"),
        VersionStatus(4, "END", "UNKNOWN"),
        VersionStatus(5, "UNKNOWN"),
    )
    assert server.asked == ["/v1/models/digits"]


def test_a_model_that_the_server_does_not_know_has_no_versions(server: Scripted) -> None:
    server.says = 404, b'{"error": "Could not find any versions of model digits"}'

    assert ServerStatus(server.url).versions("digits") == ()


def test_a_label_is_told_by_the_metadata(server: Scripted) -> None:
    server.says = 200, json.dumps({"model_spec": {"name": "digits", "version": "7"}, "metadata": {"a": [1]}}).encode()

    assert ServerStatus(f"{server.url}/prefix/").label("digits", "stable") == 7
    assert server.asked == ["/prefix/v1/models/digits/labels/stable/metadata"]


@pytest.mark.parametrize("status", [400, 404, 503])
def test_a_label_that_names_nothing_is_none(server: Scripted, status: int) -> None:
    server.says = status, b'{"error": "Unrecognized servable version label: stable"}'

    assert ServerStatus(server.url).label("digits", "stable") is None


@pytest.mark.parametrize(
    "says",
    [
        (200, b"<html>Please log in</html>"),
        (404, b"<html>nginx</html>"),
        (502, b'{"error": "bad gateway"}'),
        (302, b""),
        (200, b'{"model_version_status": [{"version": "three"}]}'),
        (200, b'{"model_version_status": ' + b"[" * 100_000),
        (200, b" " * (33 << 20)),
    ],
)
def test_what_no_server_would_say_is_no_answer(server: Scripted, says: Answer) -> None:
    server.says = says

    with pytest.raises(StorageError) as caught:
        ServerStatus(server.url).versions("digits")

    assert caught.value.transient
    assert not is_refused(caught.value)
    assert "8501" in str(caught.value)
    assert len(server.asked) == 1


def test_a_page_in_place_of_a_label_is_no_answer(server: Scripted) -> None:
    server.says = 404, b"<html>nginx</html>"

    with pytest.raises(StorageError):
        ServerStatus(server.url).label("digits", "stable")


def test_nobody_there_is_told() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

        with pytest.raises(StorageError, match=r"does not answer: Connection refused") as caught:
            ServerStatus(url).versions("digits")
    assert caught.value.transient
    assert is_refused(caught.value)


def test_an_answer_that_drips_its_headers_is_left_and_no_refusal() -> None:
    with dripper(b"HTTP/1.1 200 OK\r\n", b"X-A: ") as dripping:
        with pytest.raises(StorageError, match=r"does not answer: no whole answer within 0.3 s") as caught:
            ServerStatus(dripping.url, timeout=0.3).versions("digits")
        dripping.assert_left()
    assert caught.value.transient
    assert not is_refused(caught.value)


def test_who_says_nothing_is_left_and_no_refusal() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        with pytest.raises(StorageError, match="does not answer: no whole answer") as caught:
            ServerStatus(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.3).versions("digits")
        connection, _ = silent.accept()
        with closing(connection):
            connection.settimeout(20)
            while connection.recv(65536):  # until the other side has left
                pass
    assert not is_refused(caught.value)


def test_a_server_that_ends_at_the_question_is_a_refusal() -> None:
    def end() -> None:
        connection, _ = ending.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        connection.close()

    with closing(socket.create_server(("127.0.0.1", 0))) as ending:
        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises(StorageError) as caught:
            ServerStatus(f"http://127.0.0.1:{ending.getsockname()[1]}").versions("digits")
        thread.join()
    assert is_refused(caught.value)


def test_no_proxy_is_asked(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY")

    assert ServerStatus(server.url).versions("digits") == ()


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8501",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://me:secret@host:1",
        "http://h/?q=1",
        "http://[::1",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="expected http://HOST:PORT"):
        ServerStatus(url)
