"""The errors Slipway raises, grouped by what the caller does about them.

    SlipwayError
    ├── InvalidInputError   (also ValueError)   fix the model, the spec or the call
    ├── NotFoundError       (also LookupError)  name something that is there
    ├── ConflictError                           somebody was first: reload and decide
    ├── RejectedError                           a gate said no: read the blessing
    ├── ConversionError                         TF-TRT or its environment
    ├── StorageError                            the store or a server; maybe transient
    └── FormatError                             a stored document cannot be read

The message says what was wrong, what was expected and what was found; the hint says what to do.
"""

from __future__ import annotations

import copyreg
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from model_registry.servable import Blessing


class SlipwayError(Exception):
    """Base of every expected failure.

    Attributes:
        message: What was wrong, expected and found; for a person, without a trailing full stop.
        hint: What to do about it, or None where the message says it all.
        exit_code: What the command line exits with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        # Prefect pickles what a run failed with, and the default would call __init__ without its keywords.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidInputError(SlipwayError, ValueError):
    """The model, the spec or the call is wrong, and will be wrong again."""


class NotFoundError(SlipwayError, LookupError):
    """What was named is not there."""


class ConflictError(SlipwayError):
    """Somebody else was first; nothing was overwritten."""

    exit_code = 4


class RejectedError(SlipwayError):
    """A check failed, so nothing was published.

    Attributes:
        blessing: Every check that was made, the failed ones among them.
    """

    exit_code = 3

    def __init__(self, message: str, *, blessing: Blessing, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.blessing = blessing


class ConversionError(SlipwayError):
    """TF-TRT, or what it needs to run, failed."""


class StorageError(SlipwayError):
    """The store, or a server, did not do what it was asked.

    Attributes:
        transient: Whether the same call may go through later. Wrong keys never will.
    """

    def __init__(self, message: str, *, hint: str | None = None, transient: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.transient = transient


class FormatError(SlipwayError):
    """A document in the registry is not what its key promises."""
