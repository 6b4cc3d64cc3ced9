"""What a TensorFlow Serving says of its models over REST: the only witness of what it loaded.

`GET /v1/models/NAME` lists every version, whatever label is asked for; the version of a label is told by
`/v1/models/NAME/labels/LABEL/metadata` alone, together with the signatures, which can be long: so labels are asked for
only where the answer may have changed. Nothing the server says is trusted, and no proxy is ever asked.

All that goes wrong is a transient StorageError; `is_refused` tells those after which nobody listens there from those
of a server that may well be running, but answers slowly or strangely.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote, urlsplit

from pydantic import TypeAdapter, ValidationError

from model_registry.errors import InvalidInputError, StorageError
from model_registry.paths import check_label, check_model_name
from model_registry.serving.bounded_http import BoundedHttp, TooLargeError, words
from model_registry.serving.version_status import SERVER_STATES, ServerState, VersionStatus

_LARGEST = 32 << 20  # bytes of an answer; the metadata of a model with many signatures has some
_WORDS = 2000  # characters of an error that are kept

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class _Status:
    error_code: str = "OK"
    error_message: str = ""


@dataclass(frozen=True)
class _Version:
    version: int
    state: str = "UNKNOWN"
    status: _Status = field(default_factory=_Status)


@dataclass(frozen=True)
class _Versions:
    model_version_status: list[_Version] = field(default_factory=list)


@dataclass(frozen=True)
class _ModelSpec:
    version: int


@dataclass(frozen=True)
class _Metadata:
    model_spec: _ModelSpec


@dataclass(frozen=True)
class _Failure:
    error: str


_VERSIONS, _METADATA, _FAILURE = TypeAdapter(_Versions), TypeAdapter(_Metadata), TypeAdapter(_Failure)


class ServerStatus:
    """One server, asked over a connection for each question."""

    def __init__(self, url: str, timeout: float = 5.0) -> None:
        """Asks for nothing yet.

        Args:
            url: Of its REST interface, such as `http://127.0.0.1:8501`.
            timeout: Seconds from the first attempt to connect to the last byte of an answer.

        Raises:
            InvalidInputError: If the URL is none.
        """
        self.url = url.rstrip("/")
        if not _is_server(self.url):
            raise InvalidInputError(
                f"{url!r} is no URL of a server's REST interface: expected http://HOST:PORT",
                hint="the REST port of TensorFlow Serving, --rest_api_port, is 8501 by default",
            )
        self._http = BoundedHttp(timeout=timeout, limit=_LARGEST, proxied=False)

    def versions(self, model: str) -> tuple[VersionStatus, ...]:
        """Every version of a model that the server ever took up, ascending; none where it does not know the model.

        Raises:
            StorageError: If it does not answer, or not as TensorFlow Serving does.
        """
        path = f"/v1/models/{quote(check_model_name(model))}"
        status, body = self._get(path)
        if status == 404:
            self._read(_FAILURE, body, path)
            return ()
        if status != 200:
            raise self._refusal(path, f"status {status}: {body[:200].decode(errors='replace')}")
        found = self._read(_VERSIONS, body, path).model_version_status
        return tuple(sorted(map(_status, found), key=lambda version: version.version))

    def label(self, model: str, label: str) -> int | None:
        """The version that answers under a label, or None where none does.

        Raises:
            StorageError: If the server does not answer, or not as TensorFlow Serving does.
        """
        path = f"/v1/models/{quote(check_model_name(model))}/labels/{check_label(label)}/metadata"
        status, body = self._get(path)
        if status == 200:
            return self._read(_METADATA, body, path).model_spec.version
        self._read(_FAILURE, body, path)  # an error of the server's own, not of something that stands before it
        return None

    def _get(self, path: str) -> tuple[int, bytes]:
        try:
            answer = self._http.ask(self.url + path)
        except TooLargeError:
            raise self._refusal(path, f"more than {_LARGEST >> 20} MiB") from None
        except OSError as error:
            raise StorageError(f"the server at {self.url} does not answer: {words(error)}", transient=True) from error
        return answer.status, answer.body

    def _read(self, adapter: TypeAdapter[_Answer], body: bytes, path: str) -> _Answer:
        try:
            return adapter.validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise self._refusal(path, f"{where or 'document'}: {first['msg']}") from None

    def _refusal(self, path: str, found: str) -> StorageError:
        return StorageError(
            f"{self.url}{path} is not answered as TensorFlow Serving does: {found}",
            hint="check --server: it is the REST port, 8501 by default, not the gRPC one",
            transient=True,
        )


def is_refused(error: BaseException) -> bool:
    """Whether an error of `ServerStatus` tells that nobody listens there: no server, or one that just ended.

    False for an answer that is slow, strange or too long, after which a server may well be running.
    """
    return isinstance(error.__cause__, ConnectionError)  # refused, reset, closed before an answer, a broken pipe


def _is_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # reads it
    except ValueError:
        return False
    plain = parts.username is None and not parts.query and not parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain


def _status(found: _Version) -> VersionStatus:
    state: ServerState = next((known for known in SERVER_STATES if known == found.state), "UNKNOWN")
    failed = found.status.error_code != "OK"
    error = (found.status.error_message or found.status.error_code)[:_WORDS] if failed else ""
    return VersionStatus(found.version, state, error)
