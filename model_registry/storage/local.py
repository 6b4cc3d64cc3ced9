"""A registry in a local directory, or on a file system that several machines mount.

A document is written to a temporary file, flushed to the disk, and only then given its name: by a
hard link, which fails where the name is taken, or under a lock by a rename. So a reader sees all of
it or nothing, whenever the writer is killed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from model_registry.errors import ConflictError, NotFoundError, StorageError
from model_registry.paths import STAGING, TEMPORARY, check_key, check_prefix
from model_registry.payload import hash_file
from model_registry.revision import file_mark
from model_registry.servable import PayloadFile
from model_registry.storage.base import Leftover, ObjectInfo, StoredObject
from model_registry.storage.durable import (
    ATTEMPTS,
    copy_durably,
    link,
    make_directories,
    remove_directory,
    remove_empty,
    rename,
    sync_directory,
    temporary_name,
    translated,
    write_durably,
    written_beside,
)
from model_registry.storage.file_clock import FileClock
from model_registry.storage.local_leftovers import find_leftovers, remove_leftover
from model_registry.storage.local_links import is_linked, refuse_links
from model_registry.storage.local_trees import move_tree
from model_registry.storage.local_workspace import is_held, workspace_at

_LOCK = f"{TEMPORARY}lock"


class LocalStore:
    """Objects as files below a root. The root is made by the first write."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._clock = FileClock(root, _LOCK)

    @property
    def uri(self) -> str:
        """The root's absolute path."""
        return str(self._root)

    def uri_of(self, key: str) -> str:
        """The absolute path of a key or prefix."""
        return f"{self._root}/{key}"

    def check(self, *, writing: bool = True) -> None:
        """Writes a file below the root and removes it, with all that had to be made for it."""
        if not writing:
            return
        with translated(self._root):
            made = make_directories(self._root)
            probe = self._root / temporary_name()
            try:
                write_durably(probe, b"\0" * 4096)
            finally:
                probe.unlink(missing_ok=True)
                remove_empty(made)

    def get(self, key: str) -> StoredObject:
        """Reads a document."""
        with self._open(key) as file, translated(self._path(key)):
            data = file.read()
            return StoredObject(data, _etag(data), self._clock.age(os.fstat(file.fileno())))

    def head(self, key: str) -> ObjectInfo:
        """Tells size and age."""
        with self._reading(key):
            found = self._path(key).stat()
        if not stat.S_ISREG(found.st_mode):
            raise _not_found(key)
        return ObjectInfo(key, found.st_size, self._clock.age(found), file_mark(found))

    def put_new(self, key: str, data: bytes) -> str:
        """Creates a document."""
        path = self._target(key)
        with translated(path), written_beside(path, data) as temporary:
            try:
                link(temporary, path)
            except FileExistsError:
                raise ConflictError(f"{key} exists already") from None
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                    raise
                raise StorageError(
                    f"{path} cannot be created: the file system has no hard links",
                    hint="keep the registry on one that has, such as ext4, XFS or NFS",
                ) from error
            sync_directory(path.parent)
        return _etag(data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Replaces the document that has this etag; where that is a link, the link itself."""
        path = self._target(key)
        with translated(path), self._locked():
            try:
                found = _etag(path.read_bytes())
            except FileNotFoundError:
                raise ConflictError(f"{key} is gone") from None
            if found != etag:
                raise ConflictError(f"{key} was changed by somebody else")
            with written_beside(path, data) as temporary:
                rename(temporary, path)
                sync_directory(path.parent)
        return _etag(data)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, sorted by key."""
        return self._walk(check_prefix(prefix))

    def list_children(self, prefix: str) -> Iterator[str]:
        """The names one level below a prefix; a directory without any file in it is none, as on S3."""
        entries = self._entries(check_prefix(prefix))
        for name, is_directory in sorted((name.rstrip("/"), is_directory) for name, is_directory in entries):
            if not is_directory or any(True for _ in self._walk(f"{prefix}{name}/")):
                yield name

    def upload_tree(self, source: Path, prefix: str, files: Sequence[PayloadFile]) -> None:
        """Moves a directory to a prefix by one rename; from another file system it is copied first."""
        target = self._target(prefix.rstrip("/"))
        with translated(target):
            move_tree(source, target, files)

    def download(self, key: str, destination: Path) -> PayloadFile:
        """Copies an object to a file outside the registry."""
        with self._open(key) as file, translated(destination):
            destination.parent.mkdir(parents=True, exist_ok=True)
            return copy_durably(file, destination, destination.name)

    def digest(self, key: str) -> PayloadFile:
        """Size and SHA-256 of an object; one that is or lies beyond a symbolic link is not there."""
        if is_linked(self._root, check_key(key)):
            raise _not_found(key)
        with self._open(key) as file, translated(self._path(key)):
            return hash_file(file, key)

    def copy(self, source: str, destination: str) -> None:
        """Copies an object; a file that is there is replaced."""
        path = self._target(destination)
        with self._open(source) as file, translated(path):
            for _ in range(ATTEMPTS):
                make_directories(path.parent)
                temporary = path.with_name(temporary_name())
                with suppress(FileNotFoundError):
                    copy_durably(file, temporary, path.name)
                    temporary.rename(path)
                    sync_directory(path.parent)
                    return
                file.seek(0)
            raise StorageError(f"{path.parent} keeps vanishing", transient=True)

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes files, and the directories that are empty then: a server would take one for a version."""
        for path in [self._target(key) for key in keys]:
            with translated(path):
                if not path.is_symlink() and not path.is_file():
                    continue
                with self._locked():
                    path.unlink(missing_ok=True)
            for parent in path.parents:
                if parent == self._root or not remove_directory(parent):
                    break

    def leftovers(self) -> Iterator[Leftover]:
        """Temporary files and directories, wherever they lie below the root."""
        with translated(self._root):
            yield from find_leftovers(self._root, self._clock)

    def discard(self, leftover: Leftover) -> None:
        """Removes a temporary file or directory."""
        with translated(self._root / leftover.name):
            remove_leftover(self._root, leftover, self._clock)

    def in_use(self, run: str) -> bool:
        """Whether a living process, of this machine or another, has the workspace of a run."""
        directory = self._path(f"{STAGING}{run}")
        with translated(directory):
            return is_held(directory)

    def workspace(self, run: str) -> AbstractContextManager[Path]:
        """A directory below staging/, on the registry's own file system so that a rename publishes it.

        Raises:
            ConflictError: If a process that still lives has the workspace of this run.
        """
        return workspace_at(self._target(f"{STAGING}{run}"))

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _target(self, key: str) -> Path:
        """The path of what is to be written or deleted."""
        path = self._path(key)
        refuse_links(self._root, key)
        return path

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """Tells an object that is not there from a registry that is none."""
        path = self._root / key
        with translated(path):
            try:
                yield
            except (FileNotFoundError, IsADirectoryError):
                raise _not_found(key) from None
            except NotADirectoryError:
                if self._root.is_dir():
                    raise _not_found(key) from None
                raise

    def _open(self, key: str) -> BinaryIO:
        with self._reading(key):
            return open(self._path(key), "rb", buffering=0)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps all other swaps out, of this process and of others; the kernel frees a dead process's lock."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._root / _LOCK, flags, 0o666)
        except FileNotFoundError:  # no root, so no document either
            raise ConflictError(f"nothing lies at {self._root}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _entries(self, prefix: str) -> Iterator[tuple[str, bool]]:
        """Names one level below, a directory's with its slash, in the order of the keys below them."""
        try:
            with self._reading(prefix), os.scandir(self._root / prefix) as entries:
                kinds = {
                    entry.name: entry.is_dir(follow_symlinks=False)
                    for entry in entries
                    if not entry.name.startswith(TEMPORARY)
                }
        except NotFoundError:
            return
        yield from sorted((f"{name}/" if is_directory else name, is_directory) for name, is_directory in kinds.items())

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        for name, is_directory in self._entries(prefix):
            if is_directory:
                yield from self._walk(f"{prefix}{name}")
                continue
            key = f"{prefix}{name}"
            with suppress(NotFoundError):  # deleted since
                with self._reading(key):
                    found = _of_object(self._root / key)
                yield ObjectInfo(key, found.st_size, self._clock.age(found), file_mark(found))


def _of_object(path: Path) -> os.stat_result:
    """What a listing tells of a file, or of a link to one; of a link to anything else, the link."""
    if path.is_symlink() and not path.is_file():
        return path.lstat()
    return path.stat()


def _not_found(key: str) -> NotFoundError:
    return NotFoundError(f"{key} does not exist in the registry")


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
