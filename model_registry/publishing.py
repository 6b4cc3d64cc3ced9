"""Publishes a version: reserve a number, claim the identity, upload, commit.

The rules are in `claims`; here they meet the store. Every loop is bounded, and every write
that decides something is conditional on what was read before.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

from pydantic_core import from_json

from model_registry import paths
from model_registry.catalog import Catalog
from model_registry.claims import Claim, Step, next_step, succeed
from model_registry.documents import now
from model_registry.errors import (
    ConflictError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    SlipwayError,
    StorageError,
)
from model_registry.patience import insist
from model_registry.payload import payload_files
from model_registry.renewal import renewed
from model_registry.reservation import reserve
from model_registry.servable import NATIVE, Seal, ServableVersion, Variant
from model_registry.signing import Signer
from model_registry.tombstone import Outcome, Tombstone

log = logging.getLogger("slipway.registry")  # whoever runs the pipeline listens to "slipway"

# Publishers that may get in between, one after the other, before one gives up.
_ROUNDS = 100
# Of somebody else's upload: the largest models on the slowest lines take hours.
_LONGEST_WAIT = 6 * 3600.0


class _OccupiedError(ConflictError):
    """Something that is not ours lies where our number's files belong, and none of ours lie anywhere yet."""


class Publisher:
    """One attempt to publish one draft."""

    def __init__(
        self,
        catalog: Catalog,
        draft: ServableVersion,
        payloads: Mapping[str, Path],
        *,
        lease: float,
        signer: Signer | None = None,
    ) -> None:
        self._catalog = catalog
        self._store = catalog.store
        self._signer = signer
        self._payloads = payloads
        self._draft = replace(draft, variants=_variants(draft, payloads))
        self._lease = lease
        self._write_id = secrets.token_hex(16)
        self._claim_key = paths.claim(draft.model, draft.identity)
        self._number: int | None = None
        self._uploads: list[str] = []  # the keys that are ours to delete
        self._in_doubt = False
        self._occupied: set[int] = set()  # numbers of ours at which somebody else's files lie

    def publish(self, *, force: bool) -> tuple[ServableVersion, bool]:
        """Commits the draft, or finds what is committed of the same identity; tells which (True: found).

        Raises:
            ConflictError: If this publisher was taken for dead and given up, or others always came first.
            StorageError: If the store failed; nothing is committed then, or the message says that it
                cannot be told. Transient only if calling again can succeed, and makes no second version.
        """
        try:
            for _ in range(_ROUNDS):
                held = self._hold_claim(force=force)
                if isinstance(held, ServableVersion):
                    self._give_up("another publisher of the same content was first")
                    return held, True
                try:
                    return self._upload_and_commit(*held)
                except _OccupiedError as error:
                    log.warning("%s; it stays, and the next number is tried", error.message)
                    self._give_up(error.message)
            raise ConflictError(f"{self._draft.model}: {_ROUNDS} version numbers in a row were occupied by other files")
        except SlipwayError as error:
            number = self._number
            committed = self._give_up(f"{type(error).__name__}: {error}")
            if committed:
                return committed, False
            if final := self._final(error, number, force=force):
                raise final from error
            raise
        except BaseException as error:
            self._give_up(type(error).__name__)
            raise

    def _hold_claim(self, *, force: bool) -> ServableVersion | tuple[Claim, str]:
        """Returns the claim with its etag once it is ours, or the version that makes it needless."""
        deadline = time.monotonic() + _LONGEST_WAIT
        contested = 0
        awaited = ""
        while contested < _ROUNDS and time.monotonic() < deadline:
            claim, etag, age = self._read_claim()
            outcome, retired = self._outcome_of(claim, force=force) if claim else (None, False)
            step = next_step(claim, age, outcome, lease=self._lease, force=force or retired)
            if claim and claim.write_id == self._write_id:
                if outcome is None and claim.version == self._number:
                    return claim, etag  # the write that seemed to conflict was our own
                if outcome is None:  # a number of ours that we gave up, but could not end
                    step = Step.BURY
                elif claim.version == self._number:  # somebody else ended it
                    self._number = None
            if step is Step.REUSE and isinstance(outcome, ServableVersion):
                return outcome
            if step is Step.WAIT and claim:
                if claim.write_id != awaited:
                    awaited = claim.write_id
                    self._tell_of_waiting(claim, age)
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

    def _outcome_of(self, claim: Claim, *, force: bool) -> tuple[Outcome, bool]:
        try:
            return self._catalog.claimed(self._draft.model, claim.version, self._draft.identity)
        except FormatError as error:
            if not force:
                raise
            # What cannot be trusted is succeeded like what was given up.
            return Tombstone(who="", why=error.message, when=""), False

    def _succession(self, claim: Claim | None, outcome: Outcome) -> Claim:
        if self._number is None:
            self._number = reserve(self._store, self._draft, self._write_id)
        return succeed(claim, outcome, version=self._number, write_id=self._write_id, run=self._draft.run)

    def _tell_of_waiting(self, claim: Claim, age: float) -> None:
        with suppress(NotFoundError):  # the claim's own age is the next best
            age = self._store.head(paths.reservation(self._draft.model, claim.version)).age
        since = (datetime.now(timezone.utc) - timedelta(seconds=age)).isoformat(timespec="seconds")
        log.info(
            "%s: run %r publishes the same content as version %d since %s; waiting for it",
            *(self._draft.model, claim.run.name, claim.version, since),
        )

    def _upload_and_commit(self, claim: Claim, etag: str) -> tuple[ServableVersion, bool]:
        with renewed(self._store, self._claim_key, claim, etag, every=self._lease / 6):
            for variant in self._draft.variants:
                self._upload(variant, claim.version)
            version = replace(self._draft, version=claim.version, created_at=now(), write_id=self._write_id)
            if self._signer:
                version = replace(version, signature=Seal(**self._signer.sign(from_json(version.to_json()))))
            key = paths.manifest(version.model, version.version)
            self._in_doubt = True
            try:
                insist(lambda: self._store.put_new(key, version.to_json()), self._pause)
            except (ConflictError, StorageError) as error:
                return self._settle(version, error)
        return version, False

    def _upload(self, variant: Variant, number: int) -> None:
        """Brings a variant's files to where nothing lies, and notes that they are ours to delete."""
        prefix = paths.payload(self._draft.model, variant.name, number)
        before = [*self._uploads]
        try:
            if any(True for _ in self._store.list(prefix)):
                raise ConflictError(f"something lies at {self._store.uri_of(prefix)} already")
            self._uploads += [prefix + file.path for file in variant.files]
            self._store.upload_tree(self._payloads[variant.name], prefix, variant.files)
        except ConflictError as error:
            self._uploads = before
            self._occupied.add(number)
            if before:  # and a payload that is consumed cannot go to another number
                raise
            raise _OccupiedError(error.message) from error

    def _pause(self, attempt: int) -> None:
        """Waits before the store is asked again: what is uploaded is worth some patience."""
        time.sleep(min(8.0, self._lease / 120 * 2**attempt) * random.uniform(0.5, 1.0))  # noqa: S311

    def _settle(self, version: ServableVersion, error: SlipwayError) -> tuple[ServableVersion, bool]:
        """Finds out what became of a commit that did not go through, or did so unheard."""
        outcome = insist(lambda: self._catalog.outcome(version.model, version.version), self._pause)
        if isinstance(outcome, ServableVersion) and outcome.write_id == self._write_id:
            return outcome, False
        if not isinstance(outcome, Tombstone):
            # What was refused will not come; what went unheard may still be under way.
            self._in_doubt = isinstance(error, StorageError) and error.transient
            raise error
        claim, _, _ = self._read_claim()
        heir, retired = self._outcome_of(claim, force=True) if claim else (None, False)
        if isinstance(heir, ServableVersion) and not retired:
            self._give_up(outcome.why)
            return heir, True
        raise ConflictError(
            f"{version.model}:{version.version} was given up while it was uploaded: {outcome.why}",
            hint="publish again; if this happens often, the store or this machine stalls for longer than the lease",
        ) from error

    def _bury(self, number: int, why: str) -> None:
        who = f"{self._draft.run.name} ({self._draft.run.id})"
        tombstone = Tombstone(who, why, now(), occupied=number in self._occupied)
        self._store.put_new(paths.manifest(self._draft.model, number), tombstone.to_json())

    def _give_up(self, why: str) -> ServableVersion | None:
        """Ends our number and takes back what was uploaded, as far as the store lets us; gc does the rest.

        Returns:
            The version, if it turns out to be committed.
        """
        number, self._number = self._number, None
        if number is None:
            return None
        try:
            outcome = self._end(number, why)
        except SlipwayError as error:
            log.warning("%s:%s is left for gc: %s", self._draft.model, number, error)
            return None
        self._in_doubt = False
        if isinstance(outcome, ServableVersion):
            return outcome if outcome.write_id == self._write_id else None
        uploads, self._uploads = self._uploads, []
        for clean in (partial(self._restore_claim, number), partial(self._store.delete, uploads)):
            try:
                clean()
            except ConflictError:
                pass  # the claim is somebody else's by now
            except SlipwayError as error:
                log.warning("%s:%s is left for gc: %s", self._draft.model, number, error)
        return None

    def _end(self, number: int, why: str) -> Outcome:
        try:
            self._bury(number, why)
        except ConflictError:  # ended by somebody else, or committed unheard
            return self._catalog.outcome(self._draft.model, number)
        return None

    def _restore_claim(self, number: int) -> None:
        """Points the claim back at the version that a forced one was to follow."""
        claim, etag, _ = self._read_claim()
        if claim and claim.version == number and claim.previous:
            restored = replace(claim, version=claim.previous, previous=None).renewed()
            self._store.put_if_match(self._claim_key, restored.to_json(), etag)

    def _final(self, error: SlipwayError, number: int | None, *, force: bool) -> StorageError | None:
        """The error to raise instead, where the caller must know more before it calls again."""
        if not isinstance(error, StorageError):
            return None
        consumed = not all(directory.is_dir() for directory in self._payloads.values())
        if self._in_doubt:
            return StorageError(
                f"{error.message}; whether {self._draft.model}:{number} was committed cannot be told",
                hint=f"see `slipway list {self._draft.model}` before packaging it again",
                transient=error.transient and not consumed and not force,  # forced again, it would be there twice
            )
        if error.transient and consumed:
            return StorageError(
                f"{error.message}; the SavedModel had been moved into the registry by then and is deleted",
                hint="package the model again when the store answers",
            )
        return None


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
