"""What a server's refusal means to who asked: gRPC's status codes as errors of the tree. Pure.

Where the same call may go through later, the error is a transient StorageError: the tree groups by what a caller
does, and that is the same for a store and for a server.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_registry.errors import InvalidInputError, NotFoundError, SlipwayError, StorageError

# As TensorFlow Serving words them; it answers INVALID_ARGUMENT to a label that no model has.
_UNKNOWN_LABEL = "Unrecognized servable version label"
_TOO_LARGE = "larger than max"
_FULL_QUEUE = "batch scheduling queue"
# As gRPC words them, in lower case; what a lost connection does to a handshake it words otherwise.
_HANDSHAKE = ("handshake failed", "verification check failed", "certificate_verify_failed")
_PLAIN_HTTP = ("http1.x", "HTTP/1", "Socket closed", "settings frame")
_SHOWN = 600


@dataclass(frozen=True)
class Asked:
    """What was asked of whom.

    Attributes:
        target: The server.
        model: The model's name.
        version: Its version, or None.
        label: Its version's label, or None.
    """

    target: str
    model: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.model}:{self.version}"
        return f"{self.model}@{self.label}" if self.label else self.model


def is_handshake(details: str) -> bool:
    """Whether TLS failed, which waiting does not mend."""
    return any(sign in details.lower() for sign in _HANDSHAKE)


def translated(code: str, details: str, asked: Asked, timeout: float) -> SlipwayError:
    """The error for a status.

    Args:
        code: The status code's name, such as `NOT_FOUND`.
        details: What came with it.
        asked: What was asked of whom.
        timeout: Seconds that the call had.
    """
    said = details if len(details) <= _SHOWN else f"{details[:_SHOWN]}..."
    if code == "NOT_FOUND" or (code == "INVALID_ARGUMENT" and _UNKNOWN_LABEL in details):
        return NotFoundError(f"{asked.target} does not serve {asked}: {said}")
    if code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"):
        return InvalidInputError(f"{asked.target} cannot answer this request to {asked}: {said}")
    if code == "UNIMPLEMENTED":
        return InvalidInputError(
            f"{asked.target} does not know this call: {said}", hint="is that TensorFlow Serving's gRPC port, --port?"
        )
    if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in details:
        return InvalidInputError(
            f"a message to or from {asked.target} is too large: {said}",
            hint="ask with fewer rows at once, or give the client more max_message_bytes",
        )
    if code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED") and _FULL_QUEUE in details:
        return StorageError(
            f"{asked.target} is overloaded, and refused a request to {asked}: {said}",
            hint="ask fewer at a time, or run more servers; max_enqueued_batches is how long the queue may be",
            transient=True,
        )
    if code == "DEADLINE_EXCEEDED":
        return StorageError(
            f"{asked.target} did not answer for {asked} within {timeout:g} s",
            hint="give more time, or see whether the server is loading or overloaded",
            transient=True,
        )
    if code == "UNAVAILABLE":
        return _unavailable(said, asked)
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return StorageError(f"{asked.target} refuses us: {code} {said}")
    return StorageError(
        f"{asked.target} failed on a request to {asked}: {code} {said}",
        hint="the server's log tells more",
        transient=code in ("RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED"),
    )


def _unavailable(said: str, asked: Asked) -> StorageError:
    if is_handshake(said):
        return StorageError(
            f"{asked.target}: the TLS handshake failed: {said}",
            hint="expected a certificate for that name, signed by the root certificates given, and TLS on that port",
        )
    hint = "see whether the server runs, and whether that is its gRPC port"
    if any(sign in said for sign in _PLAIN_HTTP):
        hint += "; a port that answers otherwise than gRPC is REST, or asks for TLS"
    return StorageError(f"{asked.target} cannot be reached: {said}", hint=hint, transient=True)
