"""What the registry needs of a store, and nothing more.

Rules every implementation keeps (tests/integration/test_storage_contract.py holds them to it):

- `put_new` creates or raises ConflictError, and `put_if_match` swaps or raises ConflictError, whole
  and durable, with one winner however many race. A lost response is settled by reading back: if the
  key holds the very bytes, the write won. Callers therefore put a write id into what they write.
  What that leaves open is a transient StorageError.
- A reader never sees part of an object.
- Errors of a backend's own never leave it: NotFoundError, ConflictError or StorageError do.
- Ages are told by the store's own clock, never by ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model_registry.servable import PayloadFile


@dataclass(frozen=True)
class StoredObject:
    """A small document, read whole.

    Attributes:
        data: Its bytes.
        etag: What `put_if_match` wants to see.
        age: Seconds since it was written, by the store's clock.
    """

    data: bytes
    etag: str
    age: float


@dataclass(frozen=True)
class ObjectInfo:
    """An object in a listing.

    Attributes:
        key: Its full key.
        size: In bytes.
        age: Seconds since it was written, by the store's clock.
        etag: What the store tells of its content without reading it: another one after each write that changed
            anything. To be compared with other listings' alone; empty where a store tells none.
    """

    key: str
    size: int
    age: float
    etag: str = ""


@dataclass(frozen=True)
class Leftover:
    """What an interrupted write left behind, of which no object came.

    Attributes:
        name: How the store knows it; a person can tell from it where it lies, but it is no key.
        size: In bytes.
        age: Seconds since it was last written to, by the store's clock.
    """

    name: str
    size: int
    age: float


class ObjectStore(Protocol):
    """Objects under keys such as `registry/digits/versions/3.json`."""

    @property
    def uri(self) -> str:
        """The registry as a person names it: an absolute path, or s3://bucket/prefix."""

    def uri_of(self, key: str) -> str:
        """Where a key or prefix lies, as TensorFlow Serving or the AWS CLI would be told."""

    def check(self, *, writing: bool = True) -> None:
        """Fails within seconds if nothing could be written here, or without `writing` if nothing could be read.

        Raises:
            StorageError: If the store cannot be reached, is no directory or bucket, or refuses us.
        """

    def get(self, key: str) -> StoredObject:
        """Reads a small document. Raises NotFoundError or StorageError."""

    def head(self, key: str) -> ObjectInfo:
        """Tells size and age. Raises NotFoundError or StorageError."""

    def put_new(self, key: str, data: bytes) -> str:
        """Creates a document and returns its etag. Raises ConflictError if the key is taken."""

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Replaces the document that has this etag. Raises ConflictError if it is another by now, or gone."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, sorted by key."""

    def list_children(self, prefix: str) -> Iterator[str]:
        """The names one level below a prefix, sorted, without slashes."""

    def upload_tree(self, source: Path, prefix: str, files: Sequence[PayloadFile]) -> None:
        """Brings a directory's files to a prefix, in the order given.

        A local directory takes the whole by one rename, which consumes the source when both lie on
        one file system. The bytes that arrive are those whose digest `files` tells.

        Raises:
            ConflictError: If something lies at the prefix already; nothing was brought there then.
            StorageError: If a file cannot be brought there, or is not what `files` says.
        """

    def download(self, key: str, destination: Path) -> PayloadFile:
        """Streams an object to a file and returns its size and digest as they arrived.

        The destination's directories are made. `path` in the answer is the destination's name. Who needs the
        file to outlast a loss of power flushes it to the disk.
        """

    def digest(self, key: str) -> PayloadFile:
        """Size and SHA-256 of an object as a reader gets it, streamed and not kept. `path` is the key."""

    def copy(self, source: str, destination: str) -> None:
        """Copies an object inside the store."""

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects; those that are gone already do not matter."""

    def leftovers(self) -> Iterator[Leftover]:
        """What interrupted writes left behind, and what those under way hold: their ages tell them apart.

        No listing shows them, and they are paid for: temporary files, unfinished multipart uploads.
        """

    def discard(self, leftover: Leftover) -> None:
        """Removes exactly this leftover. One that is gone already does not matter."""

    def in_use(self, run: str) -> bool:
        """Whether a living process has the `workspace` of a run below this store's `staging/`."""

    def workspace(self, run: str) -> AbstractContextManager[Path]:
        """An empty directory, mode 0700, for a run's work; removed at the end, whatever happens.

        It lies where `upload_tree` needs no copy: under the registry's own `staging/`, if that is local.
        """
