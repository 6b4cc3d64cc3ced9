"""Writes under a condition, and what became of one that was not answered plainly.

A lost answer makes the client ask again, and the second answer tells nothing of the first try: the conflict may
be with our own write, and credentials may have expired after it. So the key is read back. What even that
leaves open is raised as transient: the caller has to look, not to believe that nothing happened.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from model_registry.errors import ConflictError, InvalidInputError, NotFoundError, SlipwayError, StorageError
from model_registry.storage.base import StoredObject
from model_registry.storage.s3_client import BACKEND_ERRORS
from model_registry.storage.s3_errors import may_have_arrived, status_of, translate

_ATTEMPTS = 8  # where it met another write (409)


def write(send: Callable[[], str], read: Callable[[], StoredObject], data: bytes, *, key: str, uri: str) -> str:
    """Writes once, whatever happens on the way, and tells the ETag.

    Args:
        send: Asks the server, and tells the ETag.
        read: Reads the key back.
        data: What is written.
        key: Where to.
        uri: The same for a person.

    Raises:
        ConflictError: If the condition does not hold.
        StorageError: If it failed; transient if it may have come to pass, or may go through later.
    """
    doubtful = False
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return send()
        except BACKEND_ERRORS as error:
            doubtful = doubtful or may_have_arrived(error)
            if status_of(error) == 409 and attempt < _ATTEMPTS:
                pause(attempt)
                continue
            failure = translate(error, uri)
            if isinstance(failure, NotFoundError):
                failure = ConflictError(f"{key} is gone")
            elif isinstance(failure, ConflictError):
                failure = ConflictError(f"{key} was changed by somebody else")
            if isinstance(failure, InvalidInputError):  # it was never sent
                raise failure from error
            return _settle(read, data, failure, error, doubtful=doubtful)
    raise AssertionError("the last attempt returns or raises")


def pause(attempt: int) -> None:
    """Waits before the next attempt, the longer the more were made."""
    time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))  # noqa: S311


def _settle(
    read: Callable[[], StoredObject], data: bytes, failure: SlipwayError, cause: Exception, *, doubtful: bool
) -> str:
    unread = ""
    try:
        found = read()
    except NotFoundError:
        pass
    except StorageError as error:
        unread = f", and it cannot be read back: {error.message}"
    else:
        if found.data == data:
            return found.etag
    if doubtful and (unread or not isinstance(failure, ConflictError)):
        message = f"{failure.message}; yet the write may have gone through{unread}"
        raise StorageError(message, hint=failure.hint, transient=True) from cause
    raise failure from cause
