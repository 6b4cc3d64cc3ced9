"""What the registry's JSON documents share: they are untrusted, validated field by field or refused with the reason."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from model_registry.errors import FormatError

SCHEMA_VERSION = 1

RESTORE = "somebody else wrote into the registry; restore the document from a backup"

_Document = TypeVar("_Document")


def now() -> str:
    """The time for a document, ISO 8601 in UTC; for people only, since clocks differ."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def encodable(text: str) -> str:
    r"""The text as JSON can hold it: a byte of an argument or a file name that is no UTF-8 shows as `\udc..`."""
    return text.encode(errors="backslashreplace").decode()


def load(data: bytes, *, key: str, what: str) -> dict[str, Any]:
    """Reads a JSON object of a schema that this Slipway knows.

    Args:
        data: The stored bytes.
        key: Where they were found, for the message.
        what: What they should be, such as `a manifest`.

    Raises:
        FormatError: If they are none, or one of a newer Slipway.
    """
    try:
        document: dict[str, Any] = from_json(data)
        schema = document["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{key} is not {what}: {error}", hint=RESTORE) from None
    if schema != SCHEMA_VERSION:
        raise FormatError(
            f"{key} has schema version {schema!r}, this Slipway reads {SCHEMA_VERSION}",
            hint="install the Slipway that wrote it, or a newer one",
        )
    return document


def read(adapter: TypeAdapter[_Document], data: bytes, *, key: str, what: str) -> _Document:
    """Turns stored bytes into their type: `load`, then `validate`.

    Raises:
        FormatError: As they do.
    """
    return validate(adapter, load(data, key=key, what=what), key=key, what=what)


def validate(adapter: TypeAdapter[_Document], document: dict[str, Any], *, key: str, what: str) -> _Document:
    """Turns a loaded document into its type.

    Raises:
        FormatError: If a field is missing or wrong; the message names it.
    """
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FormatError(f"{key} is not {what}: {where or 'document'}: {first['msg']}", hint=RESTORE) from None
