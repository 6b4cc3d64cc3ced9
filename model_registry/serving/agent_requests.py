"""One request to an agent, from its first byte to its answer. What is answered stands in agent_answers."""

from __future__ import annotations

import io
import ipaddress
import logging
import re
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from model_registry.errors import ConflictError, InvalidInputError, NotFoundError, SlipwayError
from model_registry.serving.agent_answers import Answer, Answers, said
from model_registry.serving.bounded_http import BoundedReader, TooLargeError

_SECONDS = 10.0  # a connection may last
_REQUEST_BYTES = 32 * 1024
_BODY_BYTES = 4 * 1024
_STATUS: dict[type[SlipwayError], HTTPStatus] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    InvalidInputError: HTTPStatus.BAD_REQUEST,
}

logger = logging.getLogger("slipway")


class AgentRequestHandler(BaseHTTPRequestHandler):
    """Answers one request over HTTP/1.0, where the connection ends with it."""

    timeout = _SECONDS
    default_request_version = "HTTP/1.0"  # an answer always has a status line
    command = ""

    def __init__(self, *connection: Any, answers: Answers, only_host: str | None) -> None:
        """Answers at once.

        Args:
            connection: What a server passes: socket, caller's address, server.
            answers: What it has under each path.
            only_host: What it listens on, if that is a loopback address: then only that is answered to.
        """
        self._answers = answers
        self._only_host = only_host
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
        self._answer(self._answers.gets.get(self._path), other="POST" if self._path in self._answers.posts else "")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        """POST."""
        answer = self._answers.posts.get(self._path)
        self._answer(
            partial(self._posted, answer) if answer else None,
            other="GET, HEAD" if self._path in self._answers.gets else "",
        )

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Says what is wrong in a line of plain text, where the standard library sends a page."""
        self._send(said(HTTPStatus(code), message or HTTPStatus(code).phrase))

    def version_string(self) -> str:
        """The header `Server`: no version of anything, which only helps those who look for old ones."""
        return "slipway"

    def log_message(self, format: str, *arguments: object) -> None:
        """Probes and Prometheus ask all day long."""
        logger.debug(format, *arguments)

    @property
    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _answer(self, answer: Callable[[], Answer] | None, *, other: str) -> None:
        host = self._foreign_host()
        if host is not None:
            foreign = f"refused: it listens on {self._only_host} and was asked as {host!r}; ask it by that address"
            self._send(said(HTTPStatus.FORBIDDEN, foreign))
        elif answer is not None:
            self._send(self._carefully(answer))
        elif other:
            self._send(said(HTTPStatus.METHOD_NOT_ALLOWED, f"{self._path} is for {other}"), Allow=other)
        else:
            there = " and POST ".join(filter(None, (" ".join(self._answers.gets), " ".join(self._answers.posts))))
            self._send(said(HTTPStatus.NOT_FOUND, f"there is no such path; expected one of {there}"))

    def _foreign_host(self) -> str | None:
        """A name under which this loopback server was asked, though none of its own; None if there is none such."""
        if self._only_host is not None:
            for name in self.headers.get_all("Host", []):
                if not _is_local(name, self._only_host):
                    return str(name)
        return None

    def _carefully(self, answer: Callable[[], Answer]) -> Answer:
        try:
            return answer()
        except (TimeoutError, TooLargeError):  # the body did not come, or too much of it
            raise
        except SlipwayError as error:
            return said(_STATUS.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR), str(error))
        except Exception:
            logger.exception("the agent could not answer %s", self._path)
            return said(HTTPStatus.INTERNAL_SERVER_ERROR, "the agent failed; its log tells more")

    def _posted(self, answer: Callable[[bytes], Answer]) -> Answer:
        # No form and no script of a web page sends a POST elsewhere without it.
        if "Origin" in self.headers:
            return said(HTTPStatus.FORBIDDEN, "refused: it was sent by a web page, which Origin tells")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length):
            return said(HTTPStatus.LENGTH_REQUIRED, "expected the header Content-Length")
        if int(length) > _BODY_BYTES:
            return said(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {_BODY_BYTES} bytes")
        return answer(self.rfile.read(int(length)))

    def _send(self, answer: Answer, **headers: str) -> None:
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
