"""Files that are whole or not there at all after a crash, and the system's errors in our words."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from model_registry.errors import StorageError
from model_registry.paths import TEMPORARY
from model_registry.payload import CHUNK
from model_registry.servable import PayloadFile

# A directory may vanish between its making and its use, when somebody deletes the last file in it.
ATTEMPTS = 20

_REASONS = {
    errno.ENOSPC: ("no space is left there", "free some space there"),
    errno.EDQUOT: ("the disk quota is used up", "free some space there"),
    errno.EACCES: ("permission is denied", "check the owner and the mode of the directory"),
    errno.EPERM: ("the operation is not permitted", "check the owner and the attributes of the directory"),
    errno.EROFS: ("the file system is mounted read-only", "mount it read-write, or name another registry"),
    errno.ENOTDIR: ("it is a file, expected a directory", "name a directory with --registry"),
    errno.ENAMETOOLONG: ("the name is too long for the file system", None),
}
_TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EMFILE, errno.ENFILE}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns the system's errors into ours, which name the path that was worked on."""
    try:
        yield
    except OSError as error:
        # A file where a directory should be made.
        code = errno.ENOTDIR if error.errno == errno.EEXIST else error.errno or 0
        reason, hint = _REASONS.get(code, (error.strerror or str(error), None))
        raise StorageError(f"{path} cannot be used: {reason}", hint=hint, transient=code in _TRANSIENT) from error


def temporary_name() -> str:
    """A name nobody else uses, which listings leave out."""
    return f"{TEMPORARY}{secrets.token_hex(8)}.tmp"


def make_directories(directory: Path) -> tuple[Path, ...]:
    """Makes a directory and its parents durably; answers with those it made, the innermost first."""
    made: tuple[Path, ...] = ()
    if directory.is_dir():
        return made
    try:
        for path in reversed([directory, *directory.parents]):
            try:
                path.mkdir()
            except OSError:  # EEXIST before EACCES and EROFS is not promised
                if not path.is_dir():
                    raise
            else:
                made = (path, *made)
                sync_directory(path.parent)
    except OSError:
        remove_empty(made)
        raise
    return made


def remove_empty(directories: Iterable[Path]) -> None:
    """Removes directories, in the order given, up to the first that holds something."""
    for directory in directories:
        if not remove_directory(directory):
            break


def remove_directory(directory: Path) -> bool:
    """Removes an empty directory; tells whether it is gone."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A durable temporary file in the same directory, gone afterwards, as is a directory made for it in vain."""
    for _ in range(ATTEMPTS):
        made = make_directories(path.parent)
        temporary = path.with_name(temporary_name())
        try:
            write_durably(temporary, data)
        except FileNotFoundError:
            continue
        except OSError:
            temporary.unlink(missing_ok=True)
            remove_empty(made)
            raise
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        return
    raise StorageError(f"{path.parent} keeps vanishing", transient=True)


def write_durably(path: Path, data: bytes) -> None:
    """Creates a file whose content is on the disk when this returns."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def link(temporary: Path, path: Path) -> None:
    """Gives a file a second name, which nothing has yet.

    NFS sends a request again whose answer was lost, and the server may then say that the first made it fail.

    Raises:
        FileExistsError: If something else has the name.
    """
    ours = temporary.lstat()
    try:
        os.link(temporary, path)
    except FileExistsError:
        if not _is_at(path, ours):
            raise


def rename(source: Path, target: Path) -> None:
    """Renames a file or a directory; knows, as `link` does, a request of its own that was sent again.

    Raises:
        FileNotFoundError: If there is no source, or no directory for the target.
    """
    ours = source.lstat()
    try:
        source.rename(target)
    except FileNotFoundError:
        if not _is_at(target, ours):
            raise


def _is_at(path: Path, ours: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), ours)
    except FileNotFoundError:
        return False


def sync_directory(directory: Path) -> None:
    """Flushes a directory's names to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_durably(file: BinaryIO, destination: Path, path: str) -> PayloadFile:
    """Copies an open file to its end; tells size and digest of what was written. Leaves no part of one."""
    digest, size = hashlib.sha256(), 0
    try:
        with open(destination, "wb") as output:
            while chunk := file.read(CHUNK):
                output.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            output.flush()
            os.fsync(output.fileno())
    except BaseException:
        destination.unlink(missing_ok=True)
        raise
    return PayloadFile(path, size, digest.hexdigest())


def prepare_tree(directory: Path, mode: int) -> None:
    """Flushes a tree to the disk, readable by whoever can read the directory that has this mode."""
    for _, _, names, descriptor in os.fwalk(directory, follow_symlinks=False):
        for name in names:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=descriptor)
            try:
                os.fchmod(file, mode & 0o666)
                os.fsync(file)
            finally:
                os.close(file)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
