"""Stores in front of another one that fail as networks do: once, for a while, or after the work was done."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from model_registry.claims import Claim
from model_registry.errors import ConflictError, StorageError
from model_registry.servable import TOMBSTONE_BYTES, PayloadFile
from model_registry.storage import ObjectStore, StoredObject


def _away() -> StorageError:
    return StorageError("the store is away for the moment", transient=True)


class Front:
    """Passes everything on."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class FailingCommits(Front):
    """Fails where manifests lie.

    Attributes:
        failing: How many more calls there fail; reads count once a write was tried.
        heard: False if a manifest is written all the same, at the first attempt.
    """

    def __init__(self, store: ObjectStore, failing: int, *, heard: bool = True, transient: bool = True) -> None:
        super().__init__(store)
        self.failing = failing
        self._heard = heard
        self._transient = transient
        self._tried = False

    def put_new(self, key: str, data: bytes) -> str:
        if "/versions/" in key and self.failing:
            if not self._heard and not self._tried:
                self._store.put_new(key, data)
            self._tried = True
            self._fail()
        return self._store.put_new(key, data)

    def get(self, key: str) -> StoredObject:
        if "/versions/" in key and self._tried and self.failing:
            self._fail()
        return self._store.get(key)

    def _fail(self) -> None:
        self.failing -= 1
        raise StorageError("the store is away for the moment", transient=self._transient)


class OvertakenClaims(FailingCommits):
    """Fails one commit for good, and then lets somebody else swap the claim before we do."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store, 1, transient=False)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        if self._tried:
            claim = Claim.from_json(self._store.get(key).data, key=key)
            self._store.put_if_match(key, claim.renewed().to_json(), etag)
        return self._store.put_if_match(key, data, etag)


class UnheardRenewal(Front):
    """Renews a claim once without an answer; uploads wait for a word."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.go_on = threading.Event()
        self.unheard = False

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        answer = self._store.put_if_match(key, data, etag)
        if "/sources/" in key and not self.unheard:
            self.unheard = True
            raise _away()
        return answer

    def upload_tree(self, source: Path, prefix: str, files: Sequence[PayloadFile]) -> None:
        assert self.go_on.wait(60)
        self._store.upload_tree(source, prefix, files)


class IntrudedUploads(Front):
    """Finds somebody else's file where the first upload is about to go."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self._intruded = False

    def upload_tree(self, source: Path, prefix: str, files: Sequence[PayloadFile]) -> None:
        if not self._intruded:
            self._intruded = True
            self._store.put_new(f"{prefix}{files[-1].path}", b"foreign")
        self._store.upload_tree(source, prefix, files)


class UnheardClaims(Front):
    """Writes a claim, and answers that somebody else was first: a lost answer, and a repetition that conflicts."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self._unheard = False

    def put_new(self, key: str, data: bytes) -> str:
        answer = self._store.put_new(key, data)
        if "/sources/" in key and not self._unheard:
            self._unheard = True
            raise ConflictError(f"{key} exists already")
        return answer


class FailingTombstones(Front):
    """Fails to write so many tombstones."""

    def __init__(self, store: ObjectStore, failing: int) -> None:
        super().__init__(store)
        self._failing = failing

    def put_new(self, key: str, data: bytes) -> str:
        if "/versions/" in key and len(data) <= TOMBSTONE_BYTES and self._failing:
            self._failing -= 1
            raise _away()
        return self._store.put_new(key, data)
