"""The files of an exported SavedModel: found, refused where untrustworthy, hashed, put in upload order.

The process that wrote the directory ran a model's own code, so nothing in it is trusted: a symbolic
link to a credentials file would otherwise be followed, and the credentials published.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from model_registry.errors import InvalidInputError
from model_registry.paths import check_key
from model_registry.servable import PayloadFile

SAVED_MODEL = "saved_model.pb"
WARMUP_REQUESTS = "assets.extra/tf_serving_warmup_requests"

CHUNK = 1 << 20
_HASHING_THREADS = 4


def payload_files(directory: Path) -> tuple[PayloadFile, ...]:
    """Lists and hashes every file of an exported SavedModel, in the order it is to be uploaded.

    Args:
        directory: The SavedModel's own directory.

    Raises:
        InvalidInputError: If it is no SavedModel, holds anything but directories and regular files,
            or a file's name could not be an object's key.
    """
    names = list(walk_files(directory))
    if SAVED_MODEL not in names:
        raise InvalidInputError(
            f"{directory} is no exported SavedModel: expected {SAVED_MODEL} in it, found {_some(names) or 'no file'}"
        )
    return hash_files(directory, upload_order(names))


def hash_files(directory: Path, paths: Sequence[str]) -> tuple[PayloadFile, ...]:
    """Hashes files below a directory, several at once, in the order given.

    Raises:
        InvalidInputError: If one is no regular file or cannot be read.
    """
    with ThreadPoolExecutor(_HASHING_THREADS, thread_name_prefix="hash") as pool:
        return tuple(pool.map(lambda path: _hashed(directory, path), paths))


def upload_order(names: Iterable[str]) -> list[str]:
    """Sorts paths for upload: the warm-up requests first, `saved_model.pb` last.

    TensorFlow Serving takes a directory with saved_model.pb and without its variables for complete,
    and the version is broken for good; with warm-up requests in place such a load fails and is retried.
    """
    return sorted(names, key=lambda name: (name == SAVED_MODEL, name != WARMUP_REQUESTS, name))


def walk_files(directory: Path) -> Iterator[str]:
    """Yields the paths of all files below a directory, relative to it, following no link.

    Raises:
        InvalidInputError: If the directory is none, or holds something that cannot be published.
    """
    pending = [""]
    while pending:
        parent = pending.pop()
        for entry in _scan(directory, parent):
            path = f"{parent}{entry.name}"
            check_key(path)
            if entry.is_dir(follow_symlinks=False):
                pending.append(f"{path}/")
            elif entry.is_file(follow_symlinks=False):
                yield path
            else:
                raise _refusal(directory / path, entry.stat(follow_symlinks=False).st_mode)


def open_file(directory: Path, path: str) -> BinaryIO:
    """Opens one regular file below a directory for reading, following no link on the way down.

    Raises:
        InvalidInputError: If a part of the path is a link, or the last is no regular file.
        OSError: If it cannot be opened for another reason.
    """
    *parents, name = check_key(path).split("/")
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parents:
            descriptor = _descend(descriptor, part, os.O_DIRECTORY)
        # A FIFO put in place of the file would block the opening.
        descriptor = _descend(descriptor, name, os.O_NONBLOCK)
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _refusal(directory / path, mode)
        return os.fdopen(descriptor, "rb", buffering=0)
    except OSError as error:
        with suppress(OSError):
            os.close(descriptor)
        # O_NOFOLLOW says ELOOP, and with O_DIRECTORY it says ENOTDIR.
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _refusal(directory / path, stat.S_IFLNK) from None
        raise
    except InvalidInputError:
        os.close(descriptor)
        raise


def read_text(directory: Path, path: str, *, most: int) -> str | None:
    """Reads a small text below a directory, following no link on the way down.

    Args:
        directory: Where the payload lies.
        path: Of the file, relative to it.
        most: Bytes that are read of it.

    Returns:
        The text, or None if there is no such file.

    Raises:
        InvalidInputError: If a part of the path is a link, or the last is no regular file.
        OSError: If it cannot be read.
    """
    try:
        with open_file(directory, path) as file:
            return file.read(most).decode(errors="replace")
    except FileNotFoundError:
        return None


def hash_file(file: BinaryIO, path: str) -> PayloadFile:
    """Reads an open file to its end and tells its size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return PayloadFile(path, size, digest.hexdigest())


def _hashed(directory: Path, path: str) -> PayloadFile:
    try:
        with open_file(directory, path) as file:
            return hash_file(file, path)
    except OSError as error:
        raise InvalidInputError(f"{directory / path} cannot be read: {error.strerror or error}") from error


def _descend(parent: int, name: str, flags: int) -> int:
    """Opens an entry of an open directory and closes the directory."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | flags, dir_fd=parent)
    os.close(parent)
    return descriptor


def _scan(directory: Path, parent: str) -> list[os.DirEntry[str]]:
    try:
        if not parent and directory.is_symlink():
            raise _refusal(directory, stat.S_IFLNK)
        with os.scandir(directory / parent) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidInputError(f"{directory / parent} cannot be read: {error.strerror or error}") from error


def _refusal(path: Path, mode: int) -> InvalidInputError:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a device",
        stat.S_IFCHR: "a device",
        stat.S_IFDIR: "a directory",
    }
    return InvalidInputError(
        f"{path} is {kinds.get(stat.S_IFMT(mode), 'no file')}: expected a regular file, none other is published",
        hint="a SavedModel never holds one; look at what the model's own code does",
    )


def _some(names: list[str]) -> str:
    return ", ".join(sorted(names)[:5])
