"""What is made of a server that is slow, speaks strangely, is cut off, or is not there."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from model_registry.serving.server_status import ServerStatus
from model_registry.serving.sync.server_watch import ServerWatch
from model_registry.serving.sync.sync_metrics import SyncMetrics
from model_registry.serving.version_status import VersionStatus

_TIMEOUT = 0.2
_ONE = (VersionStatus(1, "AVAILABLE"),)


class _Server(ThreadingHTTPServer):
    """Has version 1 of every model but `slipway`, and does otherwise where a test says so.

    Attributes:
        odd: What is done instead: `slow`, `strange` or `cut`; by path, or for all where that is empty.
        asked: The paths that were asked for, in their order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.odd: dict[str, str] = {}
        self.asked: list[str] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path.removeprefix("/v1/models/"))
        odd = self.server.odd.get(self.server.asked[-1], self.server.odd.get("", ""))
        if odd == "slow":
            self.server.over.wait(30)
        elif odd == "strange":
            self._say(502, "<html>")
        elif odd.startswith("cut"):
            if odd == "cut once":
                self.server.odd.clear()
            reset = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            self.connection.close()
        elif self.path.endswith("/slipway"):
            self._say(404, json.dumps({"error": "Could not find any versions of model slipway"}))
        elif self.path.endswith("/metadata"):
            self._say(200, json.dumps({"model_spec": {"version": "1"}}))
        else:
            self._say(200, json.dumps({"model_version_status": [{"version": "1", "state": "AVAILABLE"}]}))

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, ValueError):  # of a connection that was cut, here or there
            self.close_connection = True

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()

    def _say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[_Server]:
    found = _Server()
    thread = threading.Thread(target=found.serve_forever, args=(0.02,))
    thread.start()
    yield found
    found.over.set()
    found.shutdown()
    thread.join()
    found.server_close()


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def watch(server: _Server, clock: _Clock) -> ServerWatch:
    return ServerWatch(ServerStatus(server.url, _TIMEOUT), SyncMetrics(), silence=30, clock=clock)


def test_what_a_server_says_is_told_by_model(watch: ServerWatch) -> None:
    look = watch.ask({"digits", "faces"}, {"digits": {"stable"}, "faces": ()})

    assert (look.reachable, look.gone) == (True, False)
    assert look.versions == {"digits": _ONE, "faces": _ONE}
    assert look.answered == {"digits": {"stable": 1}, "faces": {}}


@pytest.mark.parametrize("odd", ["slow", "strange", "cut once"])
def test_what_is_wrong_with_one_answer_is_of_that_model_alone(server: _Server, watch: ServerWatch, odd: str) -> None:
    server.odd = {"digits": odd}

    look = watch.ask({"digits", "faces"}, {})

    assert (look.reachable, look.gone) == (True, False)
    assert look.versions == {"digits": None, "faces": _ONE}


def test_a_label_that_cannot_be_told_leaves_its_model_unknown(server: _Server, watch: ServerWatch) -> None:
    server.odd = {"digits/labels/stable/metadata": "strange"}

    look = watch.ask({"digits", "faces"}, {"digits": {"stable"}, "faces": {"stable"}})

    assert look.versions == {"digits": None, "faces": _ONE}
    assert look.answered == {"faces": {"stable": 1}}


@pytest.mark.parametrize("odd", ["slow", "strange"])
def test_the_only_model_that_cannot_be_told_of_does_not_make_a_server_gone(
    server: _Server, watch: ServerWatch, clock: _Clock, odd: str
) -> None:
    server.odd = {"digits": odd}
    for _ in range(2):
        clock.now += 60
        look = watch.ask({"digits"}, {})
        assert (look.reachable, look.gone, look.versions) == (True, False, {"digits": None})


@pytest.mark.parametrize("odd", ["slow", "strange"])
def test_a_server_that_makes_no_sense_is_gone_after_a_while(
    server: _Server, watch: ServerWatch, clock: _Clock, odd: str
) -> None:
    assert watch.ask({"digits"}, {}).reachable
    server.odd = {"": odd}
    clock.now += 29.9
    look = watch.ask({"digits"}, {})
    assert (look.reachable, look.gone) == (False, False)

    clock.now += 0.1
    look = watch.ask({"digits"}, {})
    assert (look.reachable, look.gone) == (False, True)

    server.odd = {}
    assert watch.ask({"digits"}, {}).reachable
    server.odd = {"": odd}
    assert not watch.ask({"digits"}, {}).gone


def test_a_server_that_refuses_connections_is_gone_at_once(clock: _Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    watch = ServerWatch(ServerStatus(url, _TIMEOUT), SyncMetrics(), clock=clock)
    for models in ({"digits"}, set[str]()):
        look = watch.ask(models, {})
        assert (look.reachable, look.gone) == (False, True)


def test_a_server_whose_name_is_not_known_is_gone_at_once(clock: _Clock) -> None:
    """Such as that of a container that ended."""
    try:
        socket.getaddrinfo("nobody.invalid", 8501)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            pytest.skip("nobody is there to ask for names")
    watch = ServerWatch(ServerStatus("http://nobody.invalid:8501", 5.0), SyncMetrics(), clock=clock)
    look = watch.ask({"digits"}, {})
    assert (look.reachable, look.gone) == (False, True)


def test_a_server_that_cuts_every_connection_is_gone_at_once(server: _Server, watch: ServerWatch) -> None:
    """Such as a proxy before one that ended."""
    server.odd = {"": "cut"}
    look = watch.ask({"digits", "faces"}, {})
    assert (look.reachable, look.gone, look.versions) == (False, True, {})


def test_a_server_that_hangs_is_not_waited_for_once_for_each_model(server: _Server, watch: ServerWatch) -> None:
    server.odd = {"": "slow"}
    assert not watch.ask({f"model-{number}" for number in range(9)}, {}).reachable
    assert server.asked == ["model-0", "model-1", "slipway"]


def test_models_that_are_slow_do_not_hide_the_others_for_ever(server: _Server, watch: ServerWatch) -> None:
    server.odd = {"a": "slow", "b": "slow"}
    assert watch.ask({"a", "b", "z"}, {}).versions == {"a": None, "b": None, "z": None}
    assert watch.ask({"a", "b", "z"}, {}).versions == {"a": None, "b": None, "z": _ONE}


def test_a_model_that_cannot_be_told_of_is_logged_once(
    server: _Server, watch: ServerWatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.odd = {"digits": "strange"}
    for _ in range(3):
        watch.ask({"digits", "faces"}, {})
    assert [record.message.split(": ")[0] for record in caplog.records].count("digits") == 1
