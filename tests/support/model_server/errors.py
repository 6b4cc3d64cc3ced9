"""What the server answers instead of a result: a code of google.rpc and a message."""

from __future__ import annotations

import grpc

_HTTP = {
    "OK": 200,
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class ServingError(Exception):
    """An answer that is an error.

    Attributes:
        code: Its name, `NOT_FOUND` say.
        message: What the caller reads.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def grpc_code(self) -> grpc.StatusCode:
        """The code as gRPC has it."""
        return grpc.StatusCode[self.code]

    @property
    def number(self) -> int:
        """The code as StatusProto has it."""
        return int(self.grpc_code.value[0])

    @property
    def http_status(self) -> int:
        """The status of a REST answer."""
        return _HTTP.get(self.code, 500)


def from_tensorflow(code: int, message: str) -> ServingError:
    """The same error that TensorFlow raised: its numbers are those of google.rpc."""
    return ServingError(_CODES[code].name, message)
