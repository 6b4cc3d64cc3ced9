"""Brings a payload's files from a store, several at once, and holds each against what it should be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from model_registry.errors import NotFoundError, SlipwayError, StorageError
from model_registry.paths import check_key
from model_registry.servable import PayloadFile
from model_registry.storage.base import ObjectStore

_TRANSFERS = 8

Damaged = Callable[[PayloadFile, str], SlipwayError]


def fetch(
    store: ObjectStore,
    prefix: str,
    files: Sequence[PayloadFile],
    destination: Path | None,
    damaged: Damaged,
    *,
    stopped: threading.Event | None = None,
) -> None:
    """Brings files to a directory, or without one reads them where they lie, and holds every byte against its digest.

    An object that is larger than it should be is refused before it is brought, for it could fill the disk.

    Args:
        store: Where they lie.
        prefix: Below which, with its closing slash.
        files: What they should be.
        destination: The directory they are brought to, which is made; None leaves them where they are.
        damaged: Makes the error for a file that is something else: called with it and with what was found.
        stopped: Once it is set, no further file is begun.

    Raises:
        SlipwayError: What `damaged` made.
        InvalidInputError: If a file's path leads out of the prefix.
        StorageError: If the store or the disk fails, or it was stopped.
    """
    keys = {file.path: check_key(prefix + file.path) for file in files}

    def bring(file: PayloadFile) -> None:
        if stopped and stopped.is_set():
            raise StorageError(f"{store.uri_of(prefix)} was not brought here: it was stopped", transient=True)
        key = keys[file.path]
        try:
            if destination and (size := store.head(key).size) > file.bytes:
                raise damaged(file, f"{size:,} bytes")
            found = store.download(key, destination / file.path) if destination else store.digest(key)
        except NotFoundError:
            raise damaged(file, "it is gone") from None
        if (found.bytes, found.sha256) != (file.bytes, file.sha256):
            raise damaged(file, f"{found.bytes:,} bytes, sha256 {found.sha256[:12]}")

    if destination:
        destination.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_TRANSFERS, thread_name_prefix="fetch") as pool:
        list(pool.map(bring, files))
