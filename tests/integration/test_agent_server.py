"""A sync agent over HTTP, asked by its own client and by whoever else speaks HTTP."""

from __future__ import annotations

import http.client
import http.server
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from model_registry.errors import ConflictError, FormatError, InvalidInputError, NotFoundError, StorageError
from model_registry.serving import agent_requests
from model_registry.serving.agent_server import AgentServer
from model_registry.serving.sync.agent_client import AgentClient
from model_registry.serving.sync.sync_metrics import SyncMetrics
from model_registry.serving.sync.sync_report import AgentReport
from tests.support.dripping import dripper
from tests.support.watched_agents import REPORT, StillAgent

FAILED = b'{"model": "digits", "version": 4}'
RETRY = ("POST", "/retry", FAILED)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[AgentServer, StillAgent]]:
    agent = StillAgent()
    with AgentServer(("127.0.0.1", 0), agent, SyncMetrics()) as server:
        yield server, agent


@pytest.fixture
def agent(running: tuple[AgentServer, StillAgent]) -> StillAgent:
    """As if it were new."""
    vars(running[1]).clear()
    vars(running[1]).update(vars(StillAgent()))
    return running[1]


@pytest.fixture
def server(running: tuple[AgentServer, StillAgent], agent: StillAgent) -> AgentServer:
    return running[0]


def ask(
    server: AgentServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, str]:
    with closing(http.client.HTTPConnection(*server.address, timeout=20)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response, response.read().decode()


def talk(server: AgentServer, *sent: bytes) -> bytes:
    """What comes back for raw bytes, until the server ends the connection."""
    with closing(socket.create_connection(server.address, timeout=20)) as connection:
        for part in sent:
            connection.sendall(part)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def test_probes_tell_in_a_line_why(server: AgentServer, agent: StillAgent) -> None:
    agent.says = replace(REPORT, server_reachable=False)
    well = [ask(server, "GET", path) for path in ("/healthz", "/readyz")]
    agent.is_healthy = agent.is_ready = False
    ill = [ask(server, "GET", path) for path in ("/healthz", "/readyz?verbose")]

    assert [(response.status, text.partition(";")[0].strip()) for response, text in well] == [(200, "ok"), (200, "ok")]
    assert [response.status for response, _ in ill] == [503, 503]
    assert ill[0][1].startswith("the agent has not looked at the registry and the server for too long")
    assert "the server at http://127.0.0.1:8501 does not answer; digits@canary answers with 3" in ill[1][1]
    assert all(text.count("\n") == 1 for _, text in [*well, *ill])


def test_the_status_is_the_agents_report(server: AgentServer) -> None:
    response, text = ask(server, "GET", "/status")

    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    assert AgentReport.from_json(text.encode(), url="u") == REPORT
    assert AgentClient(server.url).report() == REPORT


def test_metrics_are_in_prometheus_text_format(server: AgentServer) -> None:
    response, text = ask(server, "GET", "/metrics")

    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["slipway_sync_server_up"].samples[0].value == 1


def test_a_retry_reaches_the_agent(server: AgentServer, agent: StillAgent) -> None:
    response, text = ask(server, *RETRY)
    AgentClient(server.url).retry("digits", 4)

    assert (response.status, text) == (202, "digits:4 will be tried again\n")
    assert agent.retried == [("digits", 4), ("digits", 4)]


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b'{"model": "digit", "version": 4}', 404, "no model 'digit': its models are digits, faces"),
        (b'{"model": "digits", "version": 9}', 404, "no digits:9: its versions are 3, 4"),
        (b'{"model": "digits", "version": 3}', 409, "digits:3 did not fail: it is AVAILABLE"),
        (b'{"model": "digits", "version": "4"}', 400, "version: Input should be a valid integer"),
        (b'{"model": "digits", "version": 0}', 400, "version: Input should be greater than"),
        (b'{"model": "digits"}', 400, "version: Field required"),
        (b'{"model": "digits", "version": 4, "force": true}', 400, "force: Extra inputs are not permitted"),
        (b"model=digits", 400, 'expected {"model": NAME, "version": NUMBER}; body: Invalid JSON'),
        (b"", 400, "Invalid JSON"),
        (b" " * 4097, 413, "expected at most 4096 bytes"),
        (b'{"model": "\\u001b]0;x\\u0007\\n", "version": 4}', 404, "no model '\\\\x1b]0;x\\\\x07\\\\n'"),
    ],
)
def test_a_retry_that_cannot_be_is_refused(
    server: AgentServer, agent: StillAgent, body: bytes, status: int, expected: str
) -> None:
    response, text = ask(server, "POST", "/retry", body)

    assert response.status == status
    assert expected.replace("\\\\", "\\") in text
    assert agent.retried == []


def test_what_the_agent_refuses_itself_is_told(server: AgentServer, agent: StillAgent) -> None:
    def refuse(model: str, version: int) -> None:
        raise ConflictError(f"{model}:{version} is being tried", hint="wait")

    agent.retry = refuse  # type: ignore[method-assign]
    response, text = ask(server, *RETRY)

    assert (response.status, text) == (409, "digits:4 is being tried (wait)\n")


def test_an_agent_that_breaks_answers_500_and_its_log_tells_more(
    server: AgentServer, agent: StillAgent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.says = None  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR, "slipway"):
        response, text = ask(server, "GET", "/status")

    assert (response.status, text) == (500, "the agent failed; its log tells more\n")
    assert "the agent could not answer /status" in caplog.text
    assert "AttributeError" in caplog.text


def test_head_tells_the_same_without_a_body(server: AgentServer, agent: StillAgent) -> None:
    agent.is_ready = False
    for path in ("/healthz", "/readyz", "/status"):
        got, text = ask(server, "GET", path)
        head, nothing = ask(server, "HEAD", path)

        assert (head.status, head.headers["Content-Type"], nothing) == (got.status, got.headers["Content-Type"], "")
        assert int(head.headers["Content-Length"]) == len(text.encode())
        assert talk(server, f"HEAD {path} HTTP/1.0\r\n\r\n".encode()).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("GET", "/", 404, "expected one of /healthz /readyz /status /metrics and POST /retry"),
        ("POST", "/nothing", 404, "POST /retry"),
        ("GET", "/../etc/passwd", 404, "there is no such path"),
        ("GET", "http://127.0.0.1/status", 404, "there is no such path"),
        ("GET", "/retry", 405, "/retry is for POST"),
        ("POST", "/status", 405, "/status is for GET, HEAD"),
        ("DELETE", "/status", 501, "Unsupported method"),
    ],
)
def test_what_there_is_not_is_told(server: AgentServer, method: str, path: str, status: int, expected: str) -> None:
    response, text = ask(server, method, path)

    assert response.status == status
    assert expected in text
    if status == 405:
        assert response.headers["Allow"] in expected


def test_answers_name_no_software_versions_and_are_kept_by_nobody(server: AgentServer) -> None:
    for path in ("/healthz", "/nothing"):
        headers = ask(server, "GET", path)[0].headers
        assert headers["Server"] == "slipway"
        assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
        assert "Python" not in str(headers)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:8502"])
def test_a_web_page_changes_nothing(server: AgentServer, agent: StillAgent, origin: str) -> None:
    response, text = ask(server, *RETRY, Origin=origin)

    assert response.status == 403
    assert "sent by a web page" in text
    assert agent.retried == []


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8502", "10.0.0.7", "127.0.0.1.evil.example", "a b", "["]
)
def test_a_name_that_was_pointed_at_loopback_is_refused(server: AgentServer, agent: StillAgent, host: str) -> None:
    for method, path, body in (RETRY, ("GET", "/status", None)):
        response, text = ask(server, method, path, body, Host=host)

        assert response.status == 403
        assert "it listens on 127.0.0.1 and was asked as" in text
        assert "agent-1" not in text
    assert agent.retried == []


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "localhost:8502", "LOCALHOST", "[::1]:8502", "127.0.0.1"])
def test_loopback_names_are_answered_to_also_through_a_tunnel(server: AgentServer, host: str) -> None:
    assert ask(server, "GET", "/healthz", Host=host)[0].status == 200


def test_who_sends_two_hosts_is_refused_if_one_is_foreign(server: AgentServer) -> None:
    answer = talk(server, b"GET /status HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")

    assert answer.startswith(b"HTTP/1.0 403 ")


def test_on_every_address_any_name_is_answered_to_but_no_page(agent: StillAgent) -> None:
    with AgentServer(("0.0.0.0", 0), agent, SyncMetrics()) as server:
        assert ask(server, "GET", "/healthz", Host="serving-7.example:8502")[0].status == 200
        assert ask(server, *RETRY, Host="serving-7.example", Origin="http://serving-7.example")[0].status == 403


def test_ipv6_and_a_free_port(agent: StillAgent) -> None:
    with AgentServer(("::1", 0), agent, SyncMetrics()) as server:
        assert server.url.startswith("http://[::1]:")
        assert server.address[1] > 0
        assert AgentClient(server.url).report() == REPORT


def test_a_port_in_use_is_told_with_what_to_do(server: AgentServer, agent: StillAgent) -> None:
    second = AgentServer(server.address, agent, SyncMetrics())

    with pytest.raises(
        InvalidInputError, match=rf"127.0.0.1:{server.address[1]} cannot be listened on: Address"
    ) as told:
        second.start()
    second.stop()
    assert "--listen HOST:PORT" in str(told.value.hint)


def test_a_host_that_is_not_here_is_told(agent: StillAgent) -> None:
    with pytest.raises(InvalidInputError, match="cannot be listened on"):
        AgentServer(("192.0.2.1", 0), agent, SyncMetrics()).start()


def test_a_server_that_was_stopped_does_not_answer_and_frees_its_port(agent: StillAgent) -> None:
    server = AgentServer(("127.0.0.1", 0), agent, SyncMetrics())
    server.stop()
    server.start()
    address = server.address
    server.stop()
    server.stop()

    with pytest.raises(StorageError) as refused:
        AgentClient(f"http://127.0.0.1:{address[1]}").report()
    assert refused.value.transient
    with AgentServer(address, agent, SyncMetrics()) as again:
        assert again.address == address


# Callers that are slow, greedy, or speak something else.


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 99 + b"Z: " + b"z" * 40_000, 431),
        (b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"GET /healthz HTTP/9.9\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
        (b"POST /retry HTTP/1.1\r\nHost: localhost\r\n\r\n", 411),
        (b"POST /retry HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /retry HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 411),
        (b"GET /healthz\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_what_is_no_request_is_refused_in_a_line(server: AgentServer, sent: bytes, status: int) -> None:
    answer = talk(server, sent)

    assert answer.startswith(b"HTTP/1.0 %d " % status)
    assert b"<html" not in answer.lower()
    assert ask(server, "GET", "/healthz")[0].status == 200


@pytest.mark.parametrize(
    "sent", [b"", b"GET /heal", b"GET / HTTP/1.1\r\nX: ", b"POST /retry HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"]
)
def test_a_caller_that_dawdles_is_left(agent: StillAgent, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(agent_requests, "_SECONDS", 0.3)
    with AgentServer(("127.0.0.1", 0), agent, SyncMetrics()) as server:
        answer = talk(server, sent)

    assert answer == b""
    assert agent.retried == []


def test_a_caller_that_drips_bytes_is_left_too(agent: StillAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_requests, "_SECONDS", 0.5)
    with (
        AgentServer(("127.0.0.1", 0), agent, SyncMetrics()) as server,
        closing(socket.create_connection(server.address, timeout=20)) as connection,
    ):
        poll(lambda: not drips(connection))


def drips(connection: socket.socket) -> bool:
    """Sends a byte; False once the other side has ended the connection."""
    try:
        connection.sendall(b"x")
    except OSError:
        return False
    return True


def test_more_connections_than_there_are_threads_for_are_turned_away(server: AgentServer) -> None:
    with_threads = 32
    before = threading.active_count()
    idle = [socket.create_connection(server.address, timeout=20) for _ in range(with_threads)]
    try:
        poll(lambda: threading.active_count() >= before + with_threads)
        assert talk(server).startswith(b"HTTP/1.0 503 ")
        assert threading.active_count() <= before + with_threads
    finally:
        for connection in idle:
            connection.close()
    poll(lambda: threading.active_count() == before)
    assert ask(server, "GET", "/healthz")[0].status == 200


def poll(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# The client, and whoever else may answer at an agent's URL.


@pytest.mark.parametrize(
    ("version", "error"), [(9, NotFoundError), (3, ConflictError)], ids=["not there", "did not fail"]
)
def test_the_client_tells_why_a_retry_was_refused(server: AgentServer, version: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"answers 4..: .*digits:{version}"):
        AgentClient(server.url).retry("digits", version)


@contextmanager
def something_else(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[AgentClient]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        other.block_on_close = False
        thread = threading.Thread(target=other.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield AgentClient(f"http://127.0.0.1:{other.server_port}", timeout=1.0)
        finally:
            other.shutdown()
            thread.join()


def says(status: int, body: bytes, **headers: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("status", "body", "error", "expected"),
    [
        (200, b"<html>", FormatError, "/status is not an agent's status"),
        (200, b'{"schema_version": 1, "agent": 5}', FormatError, "agent: Input should be a valid string"),
        (200, REPORT.to_json().replace(b'"digits"', b'"dig/its"')[:200], FormatError, "is not an agent's status"),
        (404, b"no such\x1b page", StorageError, "answers 404: no such"),
        (500, b"", StorageError, "answers 500: Internal Server Error"),
        (204, b"", FormatError, "is not an agent's status"),
    ],
)
def test_what_is_no_agent_is_told(status: int, body: bytes, error: type[Exception], expected: str) -> None:
    with something_else(says(status, body)) as client, pytest.raises(error, match=expected) as told:
        client.report()
    if status != 500:
        assert "slipway sync --listen" in str(told.value)


def test_the_client_follows_nobody_elsewhere(server: AgentServer) -> None:
    with (
        something_else(says(302, b"", Location=f"{server.url}/status")) as client,
        pytest.raises(StorageError, match="answers 302"),
    ):
        client.report()


def test_an_answer_without_end_is_not_read_to_the_end() -> None:
    def pour(request: http.server.BaseHTTPRequestHandler) -> None:
        says(200, b"")(request)
        try:
            while True:
                request.wfile.write(b" " * 1_000_000)
        except OSError:
            pass

    with something_else(pour) as client, pytest.raises((FormatError, StorageError), match=r"more than|no whole answer"):
        client.report()


@pytest.mark.timeout(60)
def test_an_answer_that_drips_is_given_up() -> None:
    with dripper(b"HTTP/1.1 200 OK\r\n", b"X-A: ") as dripping:
        with pytest.raises(StorageError, match=r"does not answer: no whole answer within 0.5 s") as told:
            AgentClient(dripping.url, timeout=0.5).report()
        dripping.assert_left()
    assert told.value.transient


def test_loopback_is_never_asked_through_a_proxy(server: AgentServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    assert AgentClient(server.url).report() == REPORT
    with pytest.raises(StorageError, match="does not answer: Connection refused"):
        AgentClient("http://serving-7.example:8502").report()


def test_a_status_below_a_path_is_asked_for_there() -> None:
    asked = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        says(200, json.dumps(json.loads(REPORT.to_json())).encode())(request)

    with something_else(answer) as client:
        assert AgentClient(f"{client.url}/agents/7/").report() == REPORT
    assert asked == ["/agents/7/status"]
