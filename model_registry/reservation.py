"""Takes version numbers. One that was taken is never given back, whatever becomes of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice

from pydantic import TypeAdapter

from model_registry import paths
from model_registry.claims import next_number
from model_registry.documents import SCHEMA_VERSION, now, read
from model_registry.errors import ConflictError, FormatError
from model_registry.servable import MAX_VERSION, Run, ServableVersion
from model_registry.storage.base import ObjectStore
from model_registry.storage.probe import check_conditional_writes

# Publishers that may get in between, one after the other, before one gives up.
_NUMBERS = 1000
_DIGITS = 19  # of the longest version number, of 64 bits

log = logging.getLogger("slipway.registry")


@dataclass(frozen=True)
class Reservation:
    """Says that a number is taken.

    Attributes:
        version: The number.
        identity: What is published under it.
        run: Who does.
        reserved_at: ISO 8601 in UTC.
        write_id: Tells this publisher from any other.
    """

    version: int
    identity: str
    run: Run
    reserved_at: str
    write_id: str
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """The reservation as it is stored."""
        return _RESERVATION.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> Reservation:
        """Reads a reservation.

        Raises:
            FormatError: If the document is none.
        """
        return read(_RESERVATION, data, key=key, what="a reservation")


def reserve(store: ObjectStore, draft: ServableVersion, write_id: str) -> int:
    """Takes the next number of a draft's model.

    Args:
        store: Where.
        draft: What will be published under the number.
        write_id: The publisher's own.

    Raises:
        ConflictError: If too many others are taking numbers at once.
        FormatError: If somebody took the highest number there is.
        StorageError: If the store fails, or, asked at a model's first version, ignores the conditions of a write.
    """
    model = draft.model
    # Listed before the reservations, so that what others upload meanwhile has its reservation among them.
    occupied = _occupied(store, draft)
    found = (paths.version_of(info.key) for info in store.list(paths.reservations(model)))
    taken = [number for number in found if number]
    if not taken:
        check_conditional_writes(store, rounds=1)
    first = next_number(taken)
    if first > MAX_VERSION:
        raise FormatError(
            f"{paths.reservation(model, first - 1)} takes the highest number there is: expected numbers to follow each "
            "other",
            hint="somebody else wrote into the registry; delete the document if no version has its number",
        )
    for number in islice((number for number in count(first) if number not in occupied), _NUMBERS):
        reservation = Reservation(number, draft.identity, draft.run, now(), write_id)
        try:
            store.put_new(paths.reservation(model, number), reservation.to_json())
        except ConflictError:
            continue
        if passed := sorted(other for other in occupied if first <= other < number):
            log.warning("%s: files that no publisher reserved lie at version %s; they stay", model, _some(passed))
        return number
    raise ConflictError(f"{model}: {_NUMBERS} version numbers from {first} on were all taken meanwhile")


def _occupied(store: ObjectStore, draft: ServableVersion) -> set[int]:
    """The numbers at which files lie; TensorFlow Serving takes `007` for 7."""
    variants = (f"{paths.MODELS}{draft.model}/{variant.name}/" for variant in draft.variants)
    names = (name for prefix in variants for name in store.list_children(prefix))
    return {int(name) for name in names if name.isdecimal() and len(name) < _DIGITS}


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")


_RESERVATION = TypeAdapter(Reservation)
