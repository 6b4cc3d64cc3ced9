"""A store in memory: the protocol's plainest reading, for tests and for trying things out."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from model_registry.errors import ConflictError, InvalidInputError, NotFoundError, StorageError
from model_registry.paths import check_key, check_prefix
from model_registry.payload import open_file
from model_registry.servable import PayloadFile
from model_registry.storage.base import Leftover, ObjectInfo, StoredObject


class MemoryStore:
    """Holds everything in one dictionary, under one lock."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """Always `memory:`, since nobody else can reach it."""
        return "memory:"

    def uri_of(self, key: str) -> str:
        """Where a key or prefix lies."""
        return f"{self.uri}{key}"

    def check(self, *, writing: bool = True) -> None:
        """Memory can always be written."""

    def get(self, key: str) -> StoredObject:
        """Reads a document."""
        data, written = self._read(key)
        return StoredObject(data, _etag(data), time.monotonic() - written)

    def head(self, key: str) -> ObjectInfo:
        """Tells size and age."""
        data, written = self._read(key)
        return ObjectInfo(key, len(data), time.monotonic() - written, _etag(data))

    def put_new(self, key: str, data: bytes) -> str:
        """Creates a document."""
        check_key(key)
        with self._lock:
            if key in self._objects:
                raise ConflictError(f"{key} exists already")
            self._objects[key] = (data, time.monotonic())
        return _etag(data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Replaces the document that has this etag."""
        check_key(key)
        with self._lock:
            found = self._objects.get(key)
            if found is None or _etag(found[0]) != etag:
                raise ConflictError(f"{key} was changed by somebody else")
            self._objects[key] = (data, time.monotonic())
        return _etag(data)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, sorted by key."""
        check_prefix(prefix)
        with self._lock:
            found = sorted(item for item in self._objects.items() if item[0].startswith(prefix))
        now = time.monotonic()
        return iter([ObjectInfo(key, len(data), now - written, _etag(data)) for key, (data, written) in found])

    def list_children(self, prefix: str) -> Iterator[str]:
        """The names one level below a prefix."""
        return iter(sorted({info.key[len(prefix) :].split("/")[0] for info in self.list(prefix)}))

    def upload_tree(self, source: Path, prefix: str, files: Sequence[PayloadFile]) -> None:
        """Brings a directory's files to a prefix."""
        check_prefix(prefix)
        if any(True for _ in self.list(prefix)):
            raise ConflictError(f"something lies at {prefix} already")
        for file in files:
            try:
                with open_file(source, file.path) as opened:
                    data = opened.read()
            except InvalidInputError as error:
                raise StorageError(error.message, hint=error.hint) from error
            except OSError as error:
                raise StorageError(f"{source / file.path} cannot be read: {error.strerror}") from error
            if _describe(data, file.path) != file:
                raise StorageError(f"{source / file.path} changed after it was hashed")
            self._write(prefix + file.path, data)

    def download(self, key: str, destination: Path) -> PayloadFile:
        """Writes an object to a file."""
        data, _ = self._read(key)
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(data)
        return _describe(data, destination.name)

    def digest(self, key: str) -> PayloadFile:
        """Size and SHA-256 of an object."""
        return _describe(self._read(key)[0], key)

    def copy(self, source: str, destination: str) -> None:
        """Copies an object."""
        check_key(destination)
        self._write(destination, self._read(source)[0])

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects."""
        checked = [check_key(key) for key in keys]
        with self._lock:
            for key in checked:
                self._objects.pop(key, None)

    def leftovers(self) -> Iterator[Leftover]:
        """None: nothing is written by halves."""
        return iter(())

    def discard(self, leftover: Leftover) -> None:
        """Nothing to do."""

    def in_use(self, run: str) -> bool:
        """No workspace lies in memory."""
        check_key(run)
        return False

    @contextmanager
    def workspace(self, run: str) -> Iterator[Path]:
        """An empty directory for a run's work, among the system's temporary ones."""
        check_key(run)
        directory = Path(tempfile.mkdtemp(prefix=f"slipway-{run.replace('/', '-')}-"))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _read(self, key: str) -> tuple[bytes, float]:
        check_key(key)
        with self._lock:
            try:
                return self._objects[key]
            except KeyError:
                raise NotFoundError(f"{key} does not exist in the registry") from None

    def _write(self, key: str, data: bytes) -> None:
        check_key(key)
        with self._lock:
            self._objects[key] = (data, time.monotonic())


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _describe(data: bytes, path: str) -> PayloadFile:
    return PayloadFile(path, len(data), _etag(data))
