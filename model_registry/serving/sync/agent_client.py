"""A sync agent, asked over HTTP. What it answers is checked as if anybody had written it."""

from __future__ import annotations

import json
from http import HTTPStatus

from model_registry.errors import (
    ConflictError,
    FormatError,
    NotFoundError,
    SlipwayError,
    StorageError,
)
from model_registry.serving.bounded_http import Answer, BoundedHttp, TooLargeError, words
from model_registry.serving.http_url import base_url, is_far
from model_registry.serving.sync.sync_report import AgentReport

_ANSWER_BYTES = 16 * 1024 * 1024
_SHOWN = 300
_EXPECTED = "expected http://HOST:PORT, where `slipway sync --listen` answers"


class AgentClient:
    """Asks one agent; each call makes a connection of its own. Thread-safe.

    A proxy is used where HTTP_PROXY, HTTPS_PROXY and NO_PROXY say so, but never towards a loopback address.

    Attributes:
        url: Where the agent answers, without a closing slash.
    """

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        """Touches no network.

        Args:
            url: `http://HOST:PORT`, or https, with a path where a proxy puts the agent below one.
            timeout: Seconds from the first attempt to connect to the last byte of an answer.

        Raises:
            InvalidInputError: If the URL is none of this kind.
        """
        self.url = base_url(url, what="agent's URL", expected=_EXPECTED)
        self._http = BoundedHttp(timeout=timeout, limit=_ANSWER_BYTES, proxied=is_far(self.url))

    def report(self) -> AgentReport:
        """How things stand there.

        Raises:
            StorageError: If it does not answer; transient, since it may be starting.
            FormatError: If something else answers there, or a newer Slipway.
        """
        body = self._ask("/status")
        try:
            return AgentReport.from_json(body, url=f"{self.url}/status")
        except FormatError as error:
            raise FormatError(error.message, hint=f"no sync agent of this release answers there; {_EXPECTED}") from None

    def retry(self, model: str, version: int) -> None:
        """Lets a version that failed there be tried again.

        Raises:
            NotFoundError: If the agent knows no such model or version.
            ConflictError: If it did not fail.
            StorageError: If the agent does not answer, or refuses.
        """
        self._ask("/retry", json.dumps({"model": model, "version": version}).encode())

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        try:
            answer = self._http.ask(self.url + path, body)
        except TooLargeError:
            raise FormatError(
                f"{self.url} answers with more than {_ANSWER_BYTES} bytes: expected a status of an agent"
            ) from None
        except OSError as error:
            raise StorageError(f"{self.url} does not answer: {words(error)}", transient=True) from error
        if answer.status // 100 != 2:
            raise self._refusal(path, answer)
        return answer.body

    def _refusal(self, path: str, answer: Answer) -> SlipwayError:
        said = answer.body[: _SHOWN * 4].decode(errors="replace").strip()[:_SHOWN]
        message = f"{self.url}{path} answers {answer.status}: {said or answer.reason}"
        if path == "/retry" and answer.status == HTTPStatus.NOT_FOUND:
            return NotFoundError(message)
        if path == "/retry" and answer.status == HTTPStatus.CONFLICT:
            return ConflictError(message)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return StorageError(message, transient=True)
        return StorageError(message, hint=_EXPECTED)
