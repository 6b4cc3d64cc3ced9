"""What lies at a manifest's key where no version does, or does no longer. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from model_registry.documents import SCHEMA_VERSION, encodable, load, validate
from model_registry.servable import TOMBSTONE_BYTES, ServableVersion


@dataclass(frozen=True)
class Tombstone:
    """Lies where a manifest would: this number will never be committed, or its version was collected.

    Attributes:
        who: The run that gave it up, or `gc`.
        why: For a person; shortened to what a tombstone may take.
        when: ISO 8601 in UTC.
        occupied: Whether files of somebody else lie where its payload would: gc lets them be.
    """

    who: str
    why: str
    when: str
    occupied: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "who", encodable(self.who))
        object.__setattr__(self, "why", encodable(self.why))

    def to_json(self) -> bytes:
        """The tombstone as it is stored."""
        data = to_json({"schema_version": SCHEMA_VERSION, "tombstone": self}, indent=2) + b"\n"
        if len(data) <= TOMBSTONE_BYTES:
            return data
        return replace(self, who=_shortened(self.who), why=_shortened(self.why)).to_json()


# What lies at a manifest's key; None while the number is neither committed nor given up.
Outcome = ServableVersion | Tombstone | None


@dataclass(frozen=True)
class _TombstoneDocument:
    """A tombstone as it lies in the store."""

    tombstone: Tombstone


_TOMBSTONE = TypeAdapter(_TombstoneDocument)


def read_outcome(data: bytes, *, key: str) -> ServableVersion | Tombstone:
    """Reads what lies at a manifest's key.

    Raises:
        FormatError: If it is neither a manifest nor a tombstone.
    """
    return outcome_of(load(data, key=key, what="a manifest"), key=key)


def outcome_of(document: dict[str, Any], *, key: str) -> ServableVersion | Tombstone:
    """Reads what lies at a manifest's key and is JSON already.

    Args:
        document: As `documents.load` returns it.
        key: Where it was found, for the message.

    Raises:
        FormatError: If it is neither a manifest nor a tombstone.
    """
    if "tombstone" in document:
        return validate(_TOMBSTONE, document, key=key, what="a tombstone").tombstone
    return ServableVersion.from_document(document, key=key)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[: max(57, len(text) * 3 // 4)]}..."
