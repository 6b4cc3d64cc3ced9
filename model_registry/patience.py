"""Asking a store again where it failed for the moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from model_registry.errors import StorageError

_ATTEMPTS = 5

_Answer = TypeVar("_Answer")


def insist(ask: Callable[[], _Answer], pause: Callable[[int], None]) -> _Answer:
    """Asks up to five times.

    Args:
        ask: What may fail.
        pause: Waits; called with the number of attempts that have failed.

    Raises:
        StorageError: At once where it is not transient, or the last one.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return ask()
        except StorageError as error:
            if not error.transient:
                raise
        pause(attempt)
    return ask()
