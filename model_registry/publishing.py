"""Publishes a version: reserve a number, claim the identity, upload, commit.

The rules are in `transitions`; here they meet the store. Every loop is bounded, and every write
that decides something is conditional on what was read before.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from pydantic_core import to_json

from model_registry import paths
from model_registry.errors import ConflictError, InvalidInputError, NotFoundError, SlipwayError, StorageError
from model_registry.manifests import read_manifest
from model_registry.payload import payload_files
from model_registry.servable import NATIVE, SCHEMA_VERSION, ServableVersion, Variant
from model_registry.storage.base import ObjectStore
from model_registry.transitions import Claim, Outcome, Step, Tombstone, next_number, next_step, succeed

log = logging.getLogger(__name__)

# Publishers that may get in between, one after the other, before one gives up.
_ROUNDS = 100
_NUMBERS = 1000
# Of somebody else's upload: the largest models on the slowest lines take hours.
_LONGEST_WAIT = 6 * 3600.0


def now() -> str:
    """The time for a document, ISO 8601 in UTC; for people only, since clocks differ."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class Publisher:
    """One attempt to publish one draft."""

    def __init__(
        self, store: ObjectStore, draft: ServableVersion, payloads: Mapping[str, Path], *, lease: float
    ) -> None:
        self._store = store
        self._payloads = payloads
        self._draft = replace(draft, variants=_variants(draft, payloads))
        self._lease = lease
        self._write_id = secrets.token_hex(16)
        self._claim_key = paths.claim(draft.model, draft.identity)
        self._number: int | None = None

    def publish(self, *, force: bool) -> tuple[ServableVersion, bool]:
        """Commits the draft, or finds what is committed of the same identity; tells which (True: found).

        Raises:
            ConflictError: If this publisher was taken for dead and given up, or others always came first.
            StorageError: If the store failed; nothing is committed then.
        """
        try:
            held = self._hold_claim(force=force)
            if isinstance(held, ServableVersion):
                self._give_up("another publisher of the same content was first")
                return held, True
            return self._upload_and_commit(*held)
        except BaseException as error:
            self._give_up(f"{type(error).__name__}: {error}")
            raise

    def _hold_claim(self, *, force: bool) -> ServableVersion | tuple[Claim, str]:
        """Returns the claim with its etag once it is ours, or the version that makes it needless."""
        deadline = time.monotonic() + _LONGEST_WAIT
        contested = 0
        while contested < _ROUNDS and time.monotonic() < deadline:
            claim, etag, age = self._read_claim()
            outcome = read_manifest(self._store, self._draft.model, claim.version) if claim else None
            step = next_step(claim, age, outcome, lease=self._lease, force=force)
            if step is Step.REUSE and isinstance(outcome, ServableVersion):
                return outcome
            if step is Step.WAIT:
                time.sleep(min(2.0, self._lease / 10) * random.uniform(0.5, 1.0))  # noqa: S311
                continue
            contested += 1
            try:
                if step is Step.BURY and claim:
                    why = f"its publisher, run {claim.run.name}, did not renew its claim for {age:.0f} s"
                    self._bury(claim.version, why)
                else:
                    ours = self._succession(claim, outcome)
                    data = ours.to_json()
                    if claim is None:
                        return ours, self._store.put_new(self._claim_key, data)
                    return ours, self._store.put_if_match(self._claim_key, data, etag)
            except ConflictError:
                continue
        raise ConflictError(
            f"{self._draft.model}: another publisher of the same content did not finish, and could not be relieved",
            hint="see who holds the claim: " + self._store.uri_of(self._claim_key),
        )

    def _read_claim(self) -> tuple[Claim | None, str, float]:
        try:
            stored = self._store.get(self._claim_key)
        except NotFoundError:
            return None, "", 0.0
        return Claim.from_json(stored.data, key=self._claim_key), stored.etag, stored.age

    def _succession(self, claim: Claim | None, outcome: Outcome) -> Claim:
        if self._number is None:
            self._number = self._reserve()
        return succeed(claim, outcome, version=self._number, write_id=self._write_id, run=self._draft.run)

    def _reserve(self) -> int:
        model = self._draft.model
        found = (paths.version_of(info.key) for info in self._store.list(paths.reservations(model)))
        first = next_number(number for number in found if number)
        for number in range(first, first + _NUMBERS):
            document = {
                "schema_version": SCHEMA_VERSION,
                "version": number,
                "identity": self._draft.identity,
                "run": self._draft.run,
                "reserved_at": now(),
                "write_id": self._write_id,
            }
            try:
                self._store.put_new(paths.reservation(model, number), to_json(document, indent=2) + b"\n")
            except ConflictError:
                continue
            return number
        raise ConflictError(f"{model}: the version numbers {first} to {first + _NUMBERS - 1} were all taken meanwhile")

    def _upload_and_commit(self, claim: Claim, etag: str) -> tuple[ServableVersion, bool]:
        model = self._draft.model
        with _renewed(self._store, self._claim_key, claim, etag, every=self._lease / 6):
            for variant in self._draft.variants:
                prefix = paths.payload(model, variant.name, claim.version)
                self._store.upload_tree(self._payloads[variant.name], prefix, variant.files)
            version = replace(self._draft, version=claim.version, created_at=now(), write_id=self._write_id)
            try:
                self._store.put_new(paths.manifest(model, claim.version), version.to_json())
            except (ConflictError, StorageError) as error:
                return self._settle(version, error)
        return version, False

    def _settle(self, version: ServableVersion, error: SlipwayError) -> tuple[ServableVersion, bool]:
        """Finds out what became of a commit that did not go through, or did so unheard."""
        outcome = read_manifest(self._store, version.model, version.version)
        if isinstance(outcome, ServableVersion) and outcome.write_id == self._write_id:
            return outcome, False
        if not isinstance(outcome, Tombstone):
            raise error
        self._delete_payloads(version.version)
        claim, _, _ = self._read_claim()
        heir = read_manifest(self._store, version.model, claim.version) if claim else None
        if isinstance(heir, ServableVersion):
            return heir, True
        raise ConflictError(
            f"{version.model}:{version.version} was given up while it was uploaded: {outcome.why}",
            hint="publish again; if this happens often, the store or this machine stalls for longer than the lease",
        ) from error

    def _bury(self, number: int, why: str) -> None:
        tombstone = Tombstone(who=f"{self._draft.run.name} ({self._draft.run.id})", why=why, when=now())
        self._store.put_new(paths.manifest(self._draft.model, number), tombstone.to_json())

    def _give_up(self, why: str) -> None:
        """Ends our number and takes back what was uploaded, as far as the store lets us; gc does the rest."""
        if self._number is None:
            return
        try:
            self._bury(self._number, why)
            self._restore_claim(self._number)
            self._delete_payloads(self._number)
        except ConflictError:
            pass  # ended by somebody else, or committed: then it stays
        except SlipwayError as error:
            log.warning("%s:%s is left for gc: %s", self._draft.model, self._number, error)

    def _restore_claim(self, number: int) -> None:
        """Points the claim back at the version that a forced one was to follow."""
        claim, etag, _ = self._read_claim()
        if claim and claim.version == number and claim.previous:
            restored = replace(claim, version=claim.previous, previous=None).renewed()
            self._store.put_if_match(self._claim_key, restored.to_json(), etag)

    def _delete_payloads(self, number: int) -> None:
        for variant in self._draft.variants:
            prefix = paths.payload(self._draft.model, variant.name, number)
            self._store.delete([info.key for info in self._store.list(prefix)])


@contextmanager
def _renewed(store: ObjectStore, key: str, claim: Claim, etag: str, *, every: float) -> Iterator[None]:
    """Renews a claim from a thread of its own, until the work is done or the claim is somebody else's."""
    done = threading.Event()

    def renew() -> None:
        current, tag = claim, etag
        while not done.wait(every):
            current = current.renewed()
            try:
                tag = store.put_if_match(key, current.to_json(), tag)
            except ConflictError:
                return  # taken over: the commit will tell
            except SlipwayError as error:
                log.warning("the claim %s could not be renewed: %s", key, error)

    thread = threading.Thread(target=renew, name="renew-claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _variants(draft: ServableVersion, payloads: Mapping[str, Path]) -> tuple[Variant, ...]:
    """The draft's variants, hashed here if nobody did before."""
    if draft.version or draft.created_at or draft.write_id:
        raise InvalidInputError("a draft has no version, created_at and write_id: publishing sets them")
    paths.check_model_name(draft.model)
    names = {variant.name for variant in draft.variants} or {*payloads}
    if names != {*payloads}:
        raise InvalidInputError(
            f"the draft has the variants {sorted(names)}, and payloads were given for {sorted(payloads)}"
        )
    if NATIVE not in names:
        raise InvalidInputError(f"variant {NATIVE!r} is missing: it is what loads everywhere; found {sorted(names)}")
    return draft.variants or tuple(Variant(name, payload_files(payloads[name])) for name in sorted(payloads))
