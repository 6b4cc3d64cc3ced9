"""Whether a store keeps the promise the registry is built on: conditional writes with one winner.

Stores differ more than their documentation: some ignore every condition, some refuse the right ETag, and
some honour `If-None-Match` one after another, but let several win at once. So it is tried.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from model_registry.errors import ConflictError, SlipwayError, StorageError
from model_registry.paths import staging
from model_registry.storage.base import ObjectStore

WRITERS = 8
ROUNDS = 3
_HINT = "use a store with conditional writes, such as AWS S3, MinIO, Cloudflare R2, or a local directory"


def check_conditional_writes(store: ObjectStore, *, rounds: int = ROUNDS) -> None:
    """Creates, swaps and races below `staging/doctor-<id>/`, and removes what it wrote.

    Args:
        store: Which to try.
        rounds: How many races of `WRITERS` threads to run, of either kind; 0 only tries one write after another.

    Raises:
        StorageError: If the store cannot be reached, or two writers could overwrite each other on it.
    """
    prefix = staging(f"doctor-{secrets.token_hex(6)}")
    key = f"{prefix}document"
    written = [key]
    try:
        etag = _made(store, partial(_create, store, key), "creating a new object (If-None-Match: *)")
        _refused(store, partial(_create, store, key), "If-None-Match: *, so creating an object that exists succeeds")
        # Of the same form as a right one: some servers pass over what they cannot parse.
        wrong = re.sub("[0-9a-zA-Z]", "0", etag)
        _refused(store, partial(_swap, store, key, wrong), "If-Match, so swapping with a wrong ETag succeeds")
        _made(store, partial(_swap, store, key, etag), "swapping with the right ETag (If-Match)")
        _refused(store, partial(_swap, store, key, etag), "If-Match, so swapping with an old ETag succeeds")
        for number in range(rounds):
            race = f"{prefix}race-{number}"
            written.append(race)
            _one_winner(store, partial(_create, store, race), "create the same object")
            _one_winner(store, partial(_swap, store, race, store.get(race).etag), "swap the same object")
    except BaseException:
        with suppress(SlipwayError):  # what went wrong first is what to tell
            store.delete(written)
        raise
    store.delete(written)


def _made(store: ObjectStore, write: Callable[[], str], what: str) -> str:
    try:
        return write()
    except ConflictError:
        raise _unsafe(store, f"the store refuses {what}") from None


def _refused(store: ObjectStore, write: Callable[[], str], condition: str) -> None:
    try:
        write()
    except ConflictError:
        return
    raise _unsafe(store, f"the store ignores {condition}: two writers could overwrite each other")


def _one_winner(store: ObjectStore, write: Callable[[], str], what: str) -> None:
    barrier = threading.Barrier(WRITERS)

    def run(_: int) -> bool:
        barrier.wait(60)
        try:
            write()
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        winners = sum(pool.map(run, range(WRITERS)))
    if winners != 1:
        raise _unsafe(store, f"{WRITERS} writers at once {what}, and {winners} of them win: expected 1")


def _unsafe(store: ObjectStore, what: str) -> StorageError:
    return StorageError(f"{store.uri}: {what}", hint=_HINT)


def _create(store: ObjectStore, key: str) -> str:
    return store.put_new(key, _unique())


def _swap(store: ObjectStore, key: str, etag: str) -> str:
    return store.put_if_match(key, _unique(), etag)


def _unique() -> bytes:
    # A store settles a lost answer by reading back, so that equal bytes would look like one's own.
    return secrets.token_hex(16).encode()
