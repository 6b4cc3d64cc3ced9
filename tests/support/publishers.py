"""Publishers that can be held up in the middle, and a look at what they left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from model_registry import paths
from model_registry.claims import Claim
from model_registry.errors import StorageError
from model_registry.registry import Registry
from model_registry.servable import PayloadFile, ServableVersion
from model_registry.storage import ObjectStore
from model_registry.tombstone import read_outcome
from tests.support.drafts import make_draft, make_payload


def publish(
    registry: Registry, directory: Path, identity: str = "a1", *, run: str = "run-1", force: bool = False
) -> tuple[ServableVersion, bool]:
    return registry.publish(make_draft(identity=identity, run=run), {"native": make_payload(directory)}, force=force)


def payload_keys(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list(paths.MODELS)]


class SlowStore:
    """A store whose uploads wait for a word, in front of another one; and which can be cut from it for swaps."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.uploading = threading.Event()
        self.go_on = threading.Event()
        self.cut = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def upload_tree(self, source: Path, prefix: str, files: Sequence[PayloadFile]) -> None:
        self.uploading.set()
        assert self.go_on.wait(60)
        self._store.upload_tree(source, prefix, files)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        if self.cut:
            raise StorageError("the network is gone", transient=True)
        return self._store.put_if_match(key, data, etag)


@contextmanager
def store_without_renewals(slow: SlowStore) -> Iterator[None]:
    slow.cut = True
    try:
        yield
    finally:
        slow.cut = False


def outcome_of(store: ObjectStore, number: int) -> object:
    key = paths.manifest("digits", number)
    return read_outcome(store.get(key).data, key=key)


def renewals_of(store: ObjectStore) -> int:
    key = paths.claim("digits", "a1")
    return Claim.from_json(store.get(key).data, key=key).renewal


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        time.sleep(0.05)
