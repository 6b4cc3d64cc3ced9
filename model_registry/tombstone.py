"""What lies at a manifest's key where no version does, or does no longer. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic_core import to_json

from model_registry.documents import SCHEMA_VERSION, encodable, load, validate
from model_registry.servable import TOMBSTONE_BYTES, ServableVersion, Source

# Bounded, because a tombstone is.
_SHA256 = "[0-9a-f]{64}"
Digest = Annotated[str, Field(pattern=f"^{_SHA256}$")]


@dataclass(frozen=True)
class Tombstone:
    """Lies where a manifest would: this number will never be committed, or its version was collected.

    Attributes:
        who: The run that gave it up, or `gc`.
        why: For a person; shortened to what a tombstone may take.
        when: ISO 8601 in UTC.
        occupied: Whether files of somebody else lie where its payload would: gc lets them be.
        source_sha256: Digest of the trained model that a collected version was made from, so that no schedule
            takes that model for a new one; None where there was no version.
        source_revision: What the store said of it (model_registry.revision), or None.
    """

    who: str
    why: str
    when: str
    occupied: bool = False
    source_sha256: Digest | None = None
    source_revision: Digest | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "who", encodable(self.who))
        object.__setattr__(self, "why", encodable(self.why))

    @classmethod
    def of(cls, source: Source | None, who: str, why: str, when: str) -> Tombstone:
        """The tombstone of a version that is collected.

        Args:
            source: What it was made from, as its manifest tells it; None where nobody could read that.
            who: Who collects it.
            why: For a person.
            when: ISO 8601 in UTC.
        """
        sha256, revision = (source.sha256, source.revision) if source else (None, None)
        return cls(who, why, when, source_sha256=_digest_or_none(sha256), source_revision=_digest_or_none(revision))

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
    return text if len(text) <= 40 else f"{text[: max(37, len(text) * 3 // 4)]}..."


def _digest_or_none(text: str | None) -> str | None:
    return text if text and re.fullmatch(_SHA256, text) else None
