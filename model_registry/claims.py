"""How a version comes to be: the rules of the publishing protocol, as pure functions.

    1. A number is taken by creating its reservation, and is never given back.
    2. The claim on an identity names the number that packages it. Whoever holds the claim uploads,
       and renews the claim while it does.
    3. The manifest's key has one arbiter, the store: whoever creates the object there decides. A
       manifest commits the number, a tombstone ends it.
    4. A claim is dead once its number has a tombstone. One that was not renewed for longer than the
       lease may be ended by anybody, by creating the tombstone; only then does the claim change hands.

So at most one publisher commits a number, and a late one learns at its own commit that it was given up.
Which document was read when does not matter: every step is conditional on what was read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from pydantic import TypeAdapter

from model_registry.documents import SCHEMA_VERSION, read
from model_registry.servable import Run, ServableVersion
from model_registry.tombstone import Outcome, Tombstone


@dataclass(frozen=True)
class Claim:
    """Who packages an identity, under which number.

    Attributes:
        version: The number.
        write_id: Tells this publisher from any other.
        run: The publisher, for people.
        renewal: Counts up, so that each renewal is another document.
        previous: The last committed number of the same identity, where a new one was forced.
        schema_version: Of this document.
    """

    version: int
    write_id: str
    run: Run
    renewal: int = 0
    previous: int | None = None
    schema_version: int = SCHEMA_VERSION

    def renewed(self) -> Claim:
        """The next document of the same claim."""
        return replace(self, renewal=self.renewal + 1)

    def to_json(self) -> bytes:
        """The claim as it is stored."""
        return _CLAIM.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> Claim:
        """Reads a claim.

        Raises:
            FormatError: If the document is none.
        """
        return read(_CLAIM, data, key=key, what="a claim")


class Step(Enum):
    """What a publisher does next."""

    CLAIM = "create the claim"
    TAKE = "swap the claim for one's own"
    REUSE = "take the version that is committed"
    WAIT = "look again later"
    BURY = "create the dead number's tombstone, then look again"


def next_step(claim: Claim | None, age: float, outcome: Outcome, *, lease: float, force: bool) -> Step:
    """Decides what follows from the claim on an identity.

    Args:
        claim: What was read, or None if there was none.
        age: Seconds since the claim was written or renewed, by the store's clock.
        outcome: What lies at the manifest's key of the claimed number, read after the claim.
        lease: Seconds without renewal after which a publisher is taken for dead.
        force: Whether a new version is wanted although one is committed.
    """
    if claim is None:
        return Step.CLAIM
    if isinstance(outcome, ServableVersion):
        return Step.TAKE if force else Step.REUSE
    if isinstance(outcome, Tombstone):
        return Step.TAKE
    return Step.BURY if age > lease else Step.WAIT


def next_number(reserved: Iterable[int]) -> int:
    """The number after the highest that was ever taken."""
    return max(reserved, default=0) + 1


def succeed(claim: Claim | None, outcome: Outcome, *, version: int, write_id: str, run: Run) -> Claim:
    """The claim that follows another one, remembering the version that stays committed meanwhile."""
    if isinstance(outcome, ServableVersion):
        previous: int | None = outcome.version
    else:
        previous = claim.previous if claim else None
    return Claim(version=version, write_id=write_id, run=run, previous=previous)


_CLAIM = TypeAdapter(Claim)
