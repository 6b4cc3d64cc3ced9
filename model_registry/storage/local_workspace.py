"""Directories that one run at a time works in, below a local registry's `staging/`.

A workspace is locked as long as its process lives; the kernel frees a dead process's lock. So a
killed run leaves a directory that nobody holds, and the next attempt of that run empties it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from model_registry.errors import ConflictError, StorageError
from model_registry.storage.durable import ATTEMPTS, make_directories, remove_empty, translated

# Whoever asks whether a workspace is in use holds it for a moment.
_LOCK_ATTEMPTS = 5
_PAUSE = 0.01


@contextmanager
def workspace_at(directory: Path) -> Iterator[Path]:
    """Makes a directory, empty and locked, and removes it at the end.

    Raises:
        ConflictError: If a process that still lives has it.
    """
    with translated(directory):
        made, lock = _make(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)
        remove_empty((directory.parent, *made))  # whoever is last, and not only who made it


def is_held(directory: Path) -> bool:
    """Whether a living process has it.

    Raises:
        OSError: If it may not be opened.
    """
    try:
        lock = _open(directory)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _make(directory: Path) -> tuple[tuple[Path, ...], int]:
    """Answers with the parents that were made, and the lock."""
    for attempt in range(1, ATTEMPTS + 1):
        made = make_directories(directory.parent)
        try:
            with suppress(FileExistsError):
                directory.mkdir(mode=0o700)
            lock = _open(directory)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock), directory.stat()):
                raise FileNotFoundError(directory)  # its last holder removed it while we waited
            for entry in os.scandir(directory):  # of an earlier attempt of this run that was killed
                _remove_entry(entry)
            directory.chmod(0o700)
        except FileNotFoundError:
            os.close(lock)
            continue
        except OSError as error:
            os.close(lock)
            if error.errno != errno.EWOULDBLOCK:
                raise
            if attempt < _LOCK_ATTEMPTS:
                time.sleep(_PAUSE)
                continue
            raise ConflictError(f"{directory} is in use by another process of the same run") from None
        return made, lock
    raise StorageError(f"{directory.parent} keeps vanishing", transient=True)


def _open(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _remove_entry(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry)
    else:
        Path(entry).unlink()
