"""One request to a sync agent, from its first byte to its answer. What is answered stands in agent_server."""

from __future__ import annotations

import io
import ipaddress
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from model_registry.errors import ConflictError, InvalidInputError, NotFoundError, SlipwayError
from model_registry.servable import Version
from model_registry.serving.bounded_http import BoundedReader, TooLargeError
from model_registry.serving.sync_metrics import CONTENT_TYPE, SyncMetrics
from model_registry.serving.sync_report import AgentReport

_SECONDS = 10.0  # a connection may last
_REQUEST_BYTES = 32 * 1024
_BODY_BYTES = 4 * 1024
_RETRY = "/retry"
_STATUS: dict[type[SlipwayError], HTTPStatus] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    InvalidInputError: HTTPStatus.BAD_REQUEST,
}

logger = logging.getLogger("slipway")


class ObservedAgent(Protocol):
    """What the server asks of an agent, from several threads at once."""

    def report(self) -> AgentReport:
        """How things stand; answers at once, from what was seen last."""

    def healthy(self) -> bool:
        """Whether the agent does its work; if not, it should be restarted."""

    def ready(self) -> bool:
        """Whether the server beside it answers for what this agent follows."""

    def retry(self, model: str, version: int) -> None:
        """Lets a version that failed be tried again.

        Raises:
            NotFoundError: If the agent knows no such model or version.
            ConflictError: If it did not fail.
        """


class RetryRequest(BaseModel):
    """What is posted to /retry."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    version: Version


@dataclass(frozen=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    content_type: str


class AgentRequestHandler(BaseHTTPRequestHandler):
    """Answers one request over HTTP/1.0, where the connection ends with it."""

    timeout = _SECONDS
    default_request_version = "HTTP/1.0"  # an answer always has a status line
    command = ""

    def __init__(self, *connection: Any, agent: ObservedAgent, metrics: SyncMetrics, only_host: str | None) -> None:
        """Answers at once.

        Args:
            connection: What a server passes: socket, caller's address, server.
            agent: Who is asked.
            metrics: What /metrics tells.
            only_host: What it listens on, if that is a loopback address: then only that is answered to.
        """
        self._agent = agent
        self._metrics = metrics
        self._only_host = only_host
        self._gets: dict[str, Callable[[], _Answer]] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/status": lambda: _Answer(HTTPStatus.OK, agent.report().to_json(), "application/json"),
            "/metrics": lambda: _Answer(HTTPStatus.OK, metrics.render(agent.report()), CONTENT_TYPE),
        }
        super().__init__(*connection)

    def setup(self) -> None:
        """Bounds what the connection may take."""
        super().setup()
        self.rfile.close()
        reader = BoundedReader(self.connection, deadline=time.monotonic() + _SECONDS, limit=_REQUEST_BYTES)
        self.rfile = io.BufferedReader(reader)

    def handle(self) -> None:
        """Answers, or says that too much came."""
        try:
            super().handle()
        except TooLargeError:
            self.requestline, self.request_version = "", "HTTP/1.0"
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request has at most {_REQUEST_BYTES} bytes")

    def do_GET(self) -> None:
        """GET; HEAD tells the same without the body."""
        self._answer(self._gets.get(self._path), other="POST" if self._path == _RETRY else "")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        """POST."""
        self._answer(
            self._retry if self._path == _RETRY else None, other="GET, HEAD" if self._path in self._gets else ""
        )

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Says what is wrong in a line of plain text, where the standard library sends a page."""
        self._send(_said(HTTPStatus(code), message or HTTPStatus(code).phrase))

    def version_string(self) -> str:
        """The header `Server`: no version of anything, which only helps those who look for old ones."""
        return "slipway"

    def log_message(self, format: str, *arguments: object) -> None:
        """Probes and Prometheus ask all day long."""
        logger.debug(format, *arguments)

    @property
    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _answer(self, answer: Callable[[], _Answer] | None, *, other: str) -> None:
        host = self._foreign_host()
        if host is not None:
            said = f"refused: it listens on {self._only_host} and was asked as {host!r}; ask it by that address"
            self._send(_said(HTTPStatus.FORBIDDEN, said))
        elif answer is not None:
            self._send(self._carefully(answer))
        elif other:
            self._send(_said(HTTPStatus.METHOD_NOT_ALLOWED, f"{self._path} is for {other}"), Allow=other)
        else:
            there = f"{' '.join(self._gets)} and POST {_RETRY}"
            self._send(_said(HTTPStatus.NOT_FOUND, f"there is no such path; expected one of {there}"))

    def _foreign_host(self) -> str | None:
        """A name under which this loopback server was asked, though none of its own; None if there is none such."""
        if self._only_host is not None:
            for name in self.headers.get_all("Host", []):
                if not _is_local(name, self._only_host):
                    return str(name)
        return None

    def _carefully(self, answer: Callable[[], _Answer]) -> _Answer:
        try:
            return answer()
        except (TimeoutError, TooLargeError):  # the body did not come, or too much of it
            raise
        except SlipwayError as error:
            return _said(_STATUS.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR), str(error))
        except Exception:
            logger.exception("the agent could not answer %s", self._path)
            return _said(HTTPStatus.INTERNAL_SERVER_ERROR, "the agent failed; its log tells more")

    def _healthz(self) -> _Answer:
        if self._agent.healthy():
            return _said(HTTPStatus.OK, "ok")
        stuck = "the agent has not looked at the registry and the server for too long; its log may tell why"
        return _said(HTTPStatus.SERVICE_UNAVAILABLE, stuck)

    def _readyz(self) -> _Answer:
        obstacles = "; ".join(self._agent.report().obstacles())
        if self._agent.ready():
            return _said(HTTPStatus.OK, f"ok; {obstacles}" if obstacles else "ok")
        return _said(HTTPStatus.SERVICE_UNAVAILABLE, obstacles or "the server has not been seen to serve yet")

    def _retry(self) -> _Answer:
        # No form and no script of a web page sends a POST elsewhere without it.
        if "Origin" in self.headers:
            return _said(HTTPStatus.FORBIDDEN, "refused: it was sent by a web page, which Origin tells")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length):
            return _said(HTTPStatus.LENGTH_REQUIRED, "expected the header Content-Length")
        if int(length) > _BODY_BYTES:
            return _said(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {_BODY_BYTES} bytes")
        try:
            asked = RetryRequest.model_validate_json(self.rfile.read(int(length)))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "body"
            said = f'expected {{"model": NAME, "version": NUMBER}}; {where}: {first["msg"]}'
            return _said(HTTPStatus.BAD_REQUEST, said)
        self._agent.retry(asked.model, asked.version)
        return _said(HTTPStatus.ACCEPTED, f"{asked.model}:{asked.version} will be tried again")

    def _send(self, answer: _Answer, **headers: str) -> None:
        self.send_response(answer.status)
        headers |= {
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)


def _said(status: HTTPStatus, line: str) -> _Answer:
    """A line for a person; what somebody else wrote in it neither breaks it nor steers a terminal."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)
    return _Answer(status, f"{shown}\n".encode(), "text/plain; charset=utf-8")


def _is_local(host: str, listened_on: str) -> bool:
    """Whether the header Host names this machine's loopback. Its port may be another: a tunnel has one of its own."""
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::[0-9]*)?", host.strip())
    if not found:
        return False
    name = (found[1] or found[2] or "").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in ("localhost", listened_on.lower())
